//! The prompt encoder: points and boxes become tokens, a mask is added to the picture's embedding.

use std::f32::consts::TAU;

use brisk_nn::ops::{Activation, Epilogue};
use brisk_nn::{Conv2d, ConvOptions, Init, LayerNorm, Linear, Tensor, Weights};

use super::SamConfig;
use super::config::activation;
use crate::{Error, Result};

/// What a point says of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointLabel {
    /// It is not in the mask: 0.
    Background,
    /// It is in the mask: 1.
    Foreground,
    /// No point, as the reference fills up prompts without a box: −1.
    NotAPoint,
    /// A token of zeros, by which transformers gives prompts the same number of points: −10.
    LeftOut,
}

impl PointLabel {
    /// The numbers that labels have in files, as [`PointLabel::from_number`] reads them.
    pub const NUMBERS: [i64; 4] = [0, 1, -1, -10];

    /// The label of a number; none where there is no such label.
    pub fn from_number(number: i64) -> Option<Self> {
        let labels = [
            Self::Background,
            Self::Foreground,
            Self::NotAPoint,
            Self::LeftOut,
        ];
        let at = Self::NUMBERS.iter().position(|known| *known == number)?;
        Some(labels[at])
    }
}

/// Points, as many for each prompt.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Of each prompt x and y of its points, in pixels of the frame.
    pub places: Vec<Vec<[f32; 2]>>,
    /// Of each prompt the labels of its points.
    pub labels: Vec<Vec<PointLabel>>,
}

/// Prompts, all with the same kinds of parts, of which each asks for its own masks.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Points.
    pub points: Option<Points>,
    /// Boxes, left, top, right and bottom, in pixels of the frame.
    pub boxes: Option<Vec<[f32; 4]>>,
    /// Logits of rough masks, `[prompts, 4h, 4w, 1]`.
    pub masks: Option<Tensor>,
}

impl Prompts {
    /// How many there are; one where nothing is shown.
    ///
    /// # Errors
    /// Parts that differ in their number, or prompts with different numbers of points.
    pub fn count(&self) -> Result<usize> {
        let mut counts = Vec::new();
        if let Some(points) = &self.points {
            counts.extend([
                ("points", points.places.len()),
                ("labels", points.labels.len()),
            ]);
            let each = points.places.first().map_or(0, Vec::len);
            let lengths = points.places.iter().map(Vec::len);
            if lengths
                .chain(points.labels.iter().map(Vec::len))
                .any(|length| length != each)
            {
                return Err(Error::Shape(
                    "prompts with different numbers of points, or of labels; group them by number"
                        .into(),
                ));
            }
        }
        counts.extend(self.boxes.as_ref().map(|boxes| ("boxes", boxes.len())));
        if let Some(masks) = &self.masks {
            counts.push(("masks", masks.dim(0)?));
        }
        let (first, rest) = match &counts[..] {
            [] => return Ok(1),
            [first, rest @ ..] => (first, rest),
        };
        match rest.iter().find(|(_, count)| *count != first.1) {
            Some((name, count)) => Err(Error::Shape(format!(
                "prompts with {} {} and {count} {name}; expected as many of each",
                first.1, first.0
            ))),
            None => Ok(first.1),
        }
    }

    /// Those from `start` on, `count` of them.
    ///
    /// # Errors
    /// As [`Self::count`], or fewer prompts than that.
    pub fn some(&self, start: usize, count: usize) -> Result<Self> {
        let all = self.count()?;
        if start + count > all {
            return Err(Error::Shape(format!(
                "prompts {start} to {} of {all}",
                start + count
            )));
        }
        let range = start..start + count;
        Ok(Self {
            points: self.points.as_ref().map(|points| Points {
                places: points.places[range.clone()].to_vec(),
                labels: points.labels[range.clone()].to_vec(),
            }),
            boxes: self
                .boxes
                .as_ref()
                .map(|boxes| boxes[range.clone()].to_vec()),
            masks: match &self.masks {
                Some(masks) => Some(masks.narrow(0, start, count)?),
                None => None,
            },
        })
    }

    /// Tokens that a prompt becomes: its points, one for none where there is no box, and two corners.
    pub fn tokens(&self) -> usize {
        let points = self
            .points
            .as_ref()
            .map(|points| points.places.first().map_or(0, Vec::len));
        let corners = 2 * usize::from(self.boxes.is_some());
        points.map_or(0, |count| count + usize::from(self.boxes.is_none())) + corners
    }
}

/// Rows of the table of what points are.
const LEFT_TOP: usize = 2;
const RIGHT_BOTTOM: usize = 3;
const NOT_A_POINT: usize = 4;
const KINDS: usize = 5;

/// The prompt encoder.
#[derive(Debug)]
pub struct PromptEncoder {
    /// Of x and of y.
    frequencies: [Vec<f32>; 2],
    /// `[kinds, C]`
    kinds: Tensor,
    no_mask: Tensor,
    mask: MaskEmbedding,
    /// Side of the frame in pixels.
    frame: f32,
    grid: usize,
    width: usize,
}

impl PromptEncoder {
    /// Reads `shared_image_embedding` and `prompt_encoder`.
    ///
    /// # Errors
    /// A file that cannot be read; what is missing or of another shape is told by [`Weights::finish`].
    pub fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let (width, own) = (
            config.prompt_encoder_config.hidden_size,
            weights.pp("prompt_encoder"),
        );
        let count = config.frequencies();
        let shared = weights.pp("shared_image_embedding");
        let frequencies = shared.get("positional_embedding", &[2, count], Init::Normal(1.0))?;
        let frequencies = frequencies.flatten_all()?.to_vec1::<f32>()?;
        let (of_x, of_y) = frequencies.split_at(count);
        let vector = |name: String| own.pp(name).get("weight", &[1, width], Init::Normal(1.0));
        let mut kinds = Vec::with_capacity(KINDS);
        for kind in 0..NOT_A_POINT {
            kinds.push(vector(format!("point_embed.{kind}"))?);
        }
        kinds.push(vector("not_a_point_embed".to_owned())?);
        Ok(Self {
            frequencies: [of_x.to_vec(), of_y.to_vec()],
            kinds: Tensor::cat(&kinds, 0)?,
            no_mask: vector("no_mask_embed".to_owned())?,
            mask: MaskEmbedding::load(config, &own.pp("mask_embed"))?,
            frame: config.image_size() as f32,
            grid: config.grid(),
            width,
        })
    }

    /// Positions of the cells of an embedding of `height`×`width`, `[1, height·width, C]`.
    ///
    /// # Errors
    /// None that a positive size gives.
    pub fn positions(&self, height: usize, width: usize) -> Result<Tensor> {
        let centre = |at: usize, side: usize| (at as f32 + 0.5) / side as f32;
        let mut values = Vec::with_capacity(height * width * self.width);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column)))
        {
            self.encode([centre(column, width), centre(row, height)], &mut values);
        }
        Tensor::from_vec(values, (1, height * width, self.width))
    }

    /// Sines and cosines of a place in 0..1.
    fn encode(&self, place: [f32; 2], values: &mut Vec<f32>) {
        let [x, y] = place.map(|at| 2.0 * at - 1.0);
        let angles = self.frequencies[0].iter().zip(&self.frequencies[1]);
        let angles: Vec<f32> = angles
            .map(|(of_x, of_y)| TAU * (x * of_x + y * of_y))
            .collect();
        values.extend(angles.iter().map(|angle| angle.sin()));
        values.extend(angles.iter().map(|angle| angle.cos()));
    }

    /// Tokens of prompts, `[prompts, tokens, C]`: their points, no point where there is no box, and the box's
    /// corners. None where prompts show neither points nor boxes.
    ///
    /// # Errors
    /// As [`Prompts::count`].
    pub fn tokens(&self, prompts: &Prompts) -> Result<Option<Tensor>> {
        let (count, tokens) = (prompts.count()?, prompts.tokens());
        if tokens == 0 {
            return Ok(None);
        }
        let mut places = Vec::with_capacity(count * tokens * self.width);
        let mut kinds = vec![0.0f32; count * tokens * KINDS];
        let mut at = 0;
        let mut token = |place: Option<[f32; 2]>, kind: Option<usize>| {
            match place {
                // The centre of the pixel.
                Some(place) => self.encode(place.map(|at| (at + 0.5) / self.frame), &mut places),
                None => places.resize(places.len() + self.width, 0.0),
            }
            if let Some(kind) = kind {
                kinds[at * KINDS + kind] = 1.0;
            }
            at += 1;
        };
        for index in 0..count {
            if let Some(points) = &prompts.points {
                for (place, label) in points.places[index].iter().zip(&points.labels[index]) {
                    match label {
                        PointLabel::Background => token(Some(*place), Some(0)),
                        PointLabel::Foreground => token(Some(*place), Some(1)),
                        PointLabel::NotAPoint => token(None, Some(NOT_A_POINT)),
                        PointLabel::LeftOut => token(None, None),
                    }
                }
                if prompts.boxes.is_none() {
                    token(None, Some(NOT_A_POINT));
                }
            }
            if let Some(boxes) = &prompts.boxes {
                let [left, top, right, bottom] = boxes[index];
                token(Some([left, top]), Some(LEFT_TOP));
                token(Some([right, bottom]), Some(RIGHT_BOTTOM));
            }
        }
        let places = Tensor::from_vec(places, (count * tokens, self.width))?;
        let kinds = Tensor::from_vec(kinds, (count * tokens, KINDS))?.matmul(&self.kinds)?;
        (places + kinds)?
            .reshape((count, tokens, self.width))
            .map(Some)
    }

    /// What is added to every cell where prompts have no mask, `[1, 1, C]`.
    ///
    /// # Errors
    /// None.
    pub fn no_mask(&self) -> Result<Tensor> {
        self.no_mask.reshape((1, 1, self.width))
    }

    /// What masks `[prompts, 4h, 4w, 1]` add to the cells, `[prompts, h·w, C]`.
    ///
    /// # Errors
    /// Masks of another size.
    pub fn masks(&self, masks: &Tensor) -> Result<Tensor> {
        let side = 4 * self.grid;
        let (count, height, width, one) = masks.dims4()?;
        if [height, width, one] != [side, side, 1] {
            return Err(Error::Shape(format!(
                "masks of {height}x{width} with {one} channels; expected {side}x{side} with one"
            )));
        }
        self.mask
            .forward(masks)?
            .reshape((count, self.grid * self.grid, self.width))
    }
}

/// Masks to a quarter of their sides.
#[derive(Debug)]
struct MaskEmbedding {
    halve: [(Conv2d, LayerNorm); 2],
    widen: Linear,
    activation: Activation,
}

impl MaskEmbedding {
    fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let config = &config.prompt_encoder_config;
        let middle = config.mask_input_channels;
        let halve = |index: usize, from: usize, to: usize| -> Result<(Conv2d, LayerNorm)> {
            let options = ConvOptions {
                kernel: 2,
                stride: 2,
                padding: 0,
                ..ConvOptions::SAME_3X3
            };
            let conv = Conv2d::load(&weights.pp(format!("conv{index}")), from, to, options)?;
            let norm = weights.pp(format!("layer_norm{index}"));
            Ok((
                conv,
                LayerNorm::load(&norm, to, config.layer_norm_eps, true)?,
            ))
        };
        let widen = weights.pp("conv3");
        Ok(Self {
            halve: [halve(1, 1, middle / 4)?, halve(2, middle / 4, middle)?],
            widen: Linear::load_pointwise(
                &widen,
                middle,
                config.hidden_size,
                true,
                Init::KaimingUniform,
            )?,
            activation: activation("prompt_encoder_config.hidden_act", &config.hidden_act)?,
        })
    }

    fn forward(&self, masks: &Tensor) -> Result<Tensor> {
        let mut x = masks.clone();
        for (conv, norm) in &self.halve {
            x = Epilogue::activation(self.activation).apply(norm.forward(&conv.forward(&x)?)?)?;
        }
        self.widen.forward(&x)
    }
}
