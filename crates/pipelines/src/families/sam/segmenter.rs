//! The networks with a picture, and prompts in its own pixels.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::sam::{
    ImageEncoder, MaskDecoder, PointLabel, Points, PreparedPicture, Prompts, SamConfig,
};
use brisk_nn::{Tensor, Trace, Weights};

use super::Frame;
use super::everything::{PointMasks, SegmentPoints};
use crate::error::{Error, Result};

/// The networks, and the picture that was last looked at. Clones share both.
#[derive(Clone)]
pub struct Segmenter {
    networks: Arc<Networks>,
    seen: Option<(Frame, PreparedPicture)>,
}

struct Networks {
    encoder: ImageEncoder,
    decoder: MaskDecoder,
    side: usize,
    /// Side at which the encoder sees the frame.
    encoder_side: usize,
}

/// The single mask of a prompt over the frame.
#[derive(Clone, Debug)]
pub struct CoarseMask {
    /// Logits, rows from the top.
    pub logits: Vec<f32>,
    /// Columns and rows.
    pub size: [usize; 2],
    /// Expected intersection over union.
    pub quality: f32,
}

/// A prompt in the picture's pixels; at least one part.
#[derive(Clone, Debug, Default)]
pub struct PicturePrompt {
    /// Points, and whether they are in the mask.
    pub points: Vec<([f64; 2], bool)>,
    /// Left, top, right and bottom.
    pub bounds: Option<[f64; 4]>,
    /// Logits of a rough mask, `[1, 4h, 4w, 1]`, as a prediction gives them.
    pub mask: Option<Tensor>,
}

/// Masks of one prompt, the single one first.
#[derive(Clone, Debug)]
pub struct PredictedMasks {
    /// Expected intersection over union of each.
    pub qualities: Vec<f32>,
    /// Logits of each over the frame, `[1, masks, 4h, 4w]`.
    pub coarse: Tensor,
    frame: Frame,
}

impl PredictedMasks {
    /// Hands out the logits of one mask in the picture's size, row by row from the top: all of a large picture are
    /// many.
    ///
    /// # Errors
    /// There is no such mask.
    pub fn rows(&self, mask: usize, take: impl FnMut(&[f32])) -> Result<()> {
        let (_, _, rows, columns) = self.coarse.dims4()?;
        let coarse = self.coarse.narrow(1, mask, 1)?.contiguous()?;
        let coarse = coarse.flatten_all()?.to_vec1::<f32>()?;
        self.frame.unframed_rows(&coarse, [rows, columns], take);
        Ok(())
    }

    /// Logits of one mask in the picture's size, `[height, width]`.
    ///
    /// # Errors
    /// There is no such mask.
    pub fn logits(&self, mask: usize) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        self.rows(mask, |row| logits.extend_from_slice(row))?;
        Ok(logits)
    }
}

impl Segmenter {
    /// From the weights of all networks, under [plain names](brisk_models::sam::plain_names).
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let networks = Networks {
            encoder: ImageEncoder::load_alone(config, weights)?,
            decoder: MaskDecoder::load_alone(config, weights)?,
            side: config.image_size(),
            encoder_side: config.encoder_size(),
        };
        Ok(Self {
            networks: Arc::new(networks),
            seen: None,
        })
    }

    /// One with the same networks that has looked at nothing yet.
    pub fn another(&self) -> Self {
        Self {
            networks: self.networks.clone(),
            seen: None,
        }
    }

    /// Side of the frame in pixels.
    pub fn side(&self) -> usize {
        self.networks.side
    }

    /// Encodes a picture, to which prompts refer from now on.
    ///
    /// # Errors
    /// A picture out of limits, or a non-finite activation.
    pub fn look(&mut self, picture: &Picture) -> Result<()> {
        let embedding = self.embed(picture)?;
        self.look_at([picture.width, picture.height], &embedding)
    }

    /// Encodes a picture to `[1, h, w, C]`, which [`look_at`](Self::look_at) takes.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn embed(&self, picture: &Picture) -> Result<Tensor> {
        // Prompts and masks stay in the frame, whatever size the encoder sees it at.
        let frame = Frame::new(self.networks.encoder_side, [picture.width, picture.height]);
        let pixels = frame.pixels(picture)?;
        Ok(self.networks.encoder.forward(&pixels, &mut Trace::none())?)
    }

    /// Takes the embedding of a picture of this width and height, to which prompts refer from now on.
    ///
    /// # Errors
    /// An embedding of another shape.
    pub fn look_at(&mut self, size: [usize; 2], embedding: &Tensor) -> Result<()> {
        self.seen = Some((
            Frame::new(self.side(), size),
            self.networks.decoder.prepare(embedding)?,
        ));
        Ok(())
    }

    /// All masks of a prompt.
    ///
    /// # Errors
    /// No picture was looked at, or a mask of another size.
    pub fn predict(&self, prompt: &PicturePrompt) -> Result<PredictedMasks> {
        let predicted = self.predict_all(std::slice::from_ref(prompt))?;
        let nothing = || Error::request("prompt", "no masks were decoded");
        predicted.into_iter().next().ok_or_else(nothing)
    }

    /// All masks of each prompt. Prompts of the same parts are decoded together, in less time than one by one.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_all(&self, prompts: &[PicturePrompt]) -> Result<Vec<PredictedMasks>> {
        let frame = *self.seen()?.0;
        self.decoded(prompts, |decoded, qualities| {
            Ok(PredictedMasks {
                frame,
                qualities,
                coarse: decoded,
            })
        })
    }

    /// The single mask of each prompt, over the frame. Prompts of the same parts are decoded together.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn coarse_masks(&self, prompts: &[PicturePrompt]) -> Result<Vec<CoarseMask>> {
        self.decoded(prompts, |decoded, qualities| {
            let (_, _, rows, columns) = decoded.dims4()?;
            let single = decoded.narrow(1, 0, 1)?.contiguous()?.flatten_all()?;
            Ok(CoarseMask {
                logits: single.to_vec1()?,
                size: [columns, rows],
                quality: qualities[0],
            })
        })
    }

    /// What `take` makes of each prompt's masks `[1, masks, 4h, 4w]` and their qualities.
    fn decoded<T>(
        &self,
        prompts: &[PicturePrompt],
        take: impl Fn(Tensor, Vec<f32>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (frame, picture) = self.seen()?;
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, prompt) in prompts.iter().enumerate() {
            let parts = (
                prompt.points.len(),
                prompt.bounds.is_some(),
                prompt.mask.is_some(),
            );
            groups.entry(parts).or_default().push(index);
        }
        let mut found: Vec<Option<T>> = prompts.iter().map(|_| None).collect();
        for indices in groups.values() {
            let group: Vec<&PicturePrompt> = indices.iter().map(|index| &prompts[*index]).collect();
            let decoder = &self.networks.decoder;
            let decoded = decoder.decode(picture, &together(frame, &group)?, &mut Trace::none())?;
            let qualities = decoded.qualities.to_vec2::<f32>()?;
            for (at, (index, qualities)) in indices.iter().zip(qualities).enumerate() {
                let masks = decoded.masks.narrow(0, at, 1)?;
                found[*index] = Some(take(masks, qualities)?);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Width and height of the picture that was last looked at.
    ///
    /// # Errors
    /// None was.
    pub fn picture(&self) -> Result<[usize; 2]> {
        Ok(self.seen()?.0.picture)
    }

    /// Where the picture that was last looked at lies in the frame.
    ///
    /// # Errors
    /// None was.
    pub fn frame(&self) -> Result<&Frame> {
        Ok(self.seen()?.0)
    }

    fn seen(&self) -> Result<(&Frame, &PreparedPicture)> {
        let none = || Error::request("picture", "no picture was looked at yet");
        self.seen
            .as_ref()
            .map(|(frame, picture)| (frame, picture))
            .ok_or_else(none)
    }
}

/// Prompts with the same parts as the decoder takes them.
fn together(frame: &Frame, prompts: &[&PicturePrompt]) -> Result<Prompts> {
    let mut points = Points::default();
    for prompt in prompts.iter().filter(|prompt| !prompt.points.is_empty()) {
        let places = prompt.points.iter().map(|(at, _)| frame.place(*at));
        let labels = prompt.points.iter().map(|(_, inside)| label(*inside));
        points.places.push(places.collect());
        points.labels.push(labels.collect());
    }
    let boxes: Vec<[f32; 4]> = prompts
        .iter()
        .filter_map(|prompt| prompt.bounds)
        .map(|[left, top, right, bottom]| {
            let ([left, top], [right, bottom]) =
                (frame.place([left, top]), frame.place([right, bottom]));
            [left, top, right, bottom]
        })
        .collect();
    let masks: Vec<&Tensor> = prompts
        .iter()
        .filter_map(|prompt| prompt.mask.as_ref())
        .collect();
    Ok(Prompts {
        points: (!points.places.is_empty()).then_some(points),
        boxes: (!boxes.is_empty()).then_some(boxes),
        masks: match masks.is_empty() {
            true => None,
            false => Some(Tensor::cat(&masks, 0)?),
        },
    })
}

fn label(inside: bool) -> PointLabel {
    match inside {
        true => PointLabel::Foreground,
        false => PointLabel::Background,
    }
}

impl SegmentPoints for Segmenter {
    fn look(&mut self, picture: &Picture) -> Result<()> {
        Self::look(self, picture)
    }

    fn masks(&mut self, points: &[[f64; 2]]) -> Result<Vec<PointMasks>> {
        let (frame, picture) = self.seen()?;
        let prompts = Prompts {
            points: Some(Points {
                places: points.iter().map(|at| vec![frame.place(*at)]).collect(),
                labels: vec![vec![PointLabel::Foreground]; points.len()],
            }),
            ..Prompts::default()
        };
        let decoder = &self.networks.decoder;
        let decoded = decoder.decode(picture, &prompts, &mut Trace::none())?;
        let (_, count, rows, columns) = decoded.masks.dims4()?;
        let qualities = decoded.qualities.to_vec2::<f32>()?.into_iter();
        let masks = qualities.enumerate().map(|(index, qualities)| {
            // The single mask is for prompts that leave no doubt; a point does.
            let several = decoded.masks.narrow(0, index, 1)?.narrow(1, 1, count - 1)?;
            let several = several.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
            Ok(PointMasks {
                logits: frame.unframed(&several, count - 1, [rows, columns]),
                qualities: qualities[1..].to_vec(),
            })
        });
        masks.collect()
    }
}
