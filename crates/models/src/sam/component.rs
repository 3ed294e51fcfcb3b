//! The networks from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::names::{FREQUENCIES_AGAIN, Kind, plain_names, relative, shape};
use super::{
    Decoded, ImageEncoder, ImageEncoderConfig, MaskDecoder, PointLabel, Points, PreparedPicture,
    Prompts, SamConfig, VisionConfig,
};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareError, PrepareResult, Prepared, Recognised, Runnable, Setting, Size,
    SizeName, Sizes, Work, not_run, pass,
};
use crate::{Error, Result};

/// Segment Anything.
pub static COMPONENT: Component = Component {
    name: "Segment Anything",
    classes: &SamConfig::CLASSES,
    keys: &SamConfig::KEYS,
    folders: &["sam"],
    beside: &[],
    entries: &[IMAGE_ENCODER, MASK_DECODER],
    recognise,
    open: |bytes, label| Ok(Box::new(SamConfig::from_json(bytes, label)?)),
};

const PIXELS: Port = Port::float("pixel_values", &["B", "colours", "H", "W"]);
const EMBEDDED: Port = Port::float("image_embeddings", &["B", "C", "h", "w"]);

const IMAGE_ENCODER: Entry = Entry {
    name: "image_encoder",
    about: "Encode a picture for its prompts",
    inputs: &[PIXELS],
    outputs: &[EMBEDDED],
    sizes: &[],
    settings: &[Setting::Exact, Setting::Quantization],
};

const PICTURES: Port = Port::float("image_embeddings", &["pictures", "C", "grid", "grid"]);
const COORDINATES: Port = Port::float("point_coords", &["B", "N", "2"]).optional();
const LABELS: Port = Port::one_of("point_labels", &["B", "N"], &PointLabel::NUMBERS).optional();
const BOXES: Port = Port::float("boxes", &["B", "4"]).optional();
const MASK: Port = Port::float("mask_input", &["B", "1", "fine", "fine"]).optional();
const MASKS: Port = Port::float("low_res_masks", &["B", "masks", "fine", "fine"]);
const QUALITIES: Port = Port::float("iou_predictions", &["B", "masks"]);

const MASK_DECODER: Entry = Entry {
    name: "mask_decoder",
    about: "Decode the masks of prompts of a picture",
    inputs: &[PICTURES, COORDINATES, LABELS, BOXES, MASK],
    outputs: &[MASKS, QUALITIES],
    sizes: &[PROMPTS, POINTS],
    settings: &[Setting::Quantization],
};

const PROMPTS: SizeName = SizeName {
    name: "prompts",
    unit: "N",
    about: "Prompts of a picture (default: 8)",
    usual: Some(8),
    smallest: 1,
    largest: 4096,
    of_inputs: true,
};

const POINTS: SizeName = SizeName {
    name: "points",
    unit: "N",
    about: "Points of a prompt (default: 1)",
    usual: Some(1),
    smallest: 1,
    largest: 1024,
    of_inputs: true,
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    if relative(source).is_some() {
        return Ok(None);
    }
    if Kind::of(source) != Kind::Vit {
        let config = SamConfig::of_tensors(source)?;
        let name = format!("Segment Anything {} (authors' names)", config.title());
        return Ok(Some(Recognised::with(name, Value::Object(config.facts()))));
    }
    let Some(([width, layers], authors)) = shape(source) else {
        return Ok(None);
    };
    let size = VisionConfig::of_size([width, layers]).ok();
    let size = size.and_then(|config| config.published()).unwrap_or("ViT");
    let layout = if authors { " (authors' names)" } else { "" };
    let details = json!({"image_encoder": size, "width": width, "layers": layers});
    let name = format!("Segment Anything {size}{layout}");
    Ok(Some(Recognised::with(name, details)))
}

impl SamConfig {
    /// The image encoder by its published name, or its kind.
    fn title(&self) -> &'static str {
        let encoder = &self.vision_config;
        encoder.published().unwrap_or_else(|| encoder.kind())
    }
}

impl ComponentConfig for SamConfig {
    fn description(&self) -> String {
        let title = self.title();
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => format!(
                "{title}: width {}, {} layers, {} px",
                config.hidden_size, config.num_hidden_layers, config.image_size
            ),
            ImageEncoderConfig::TinyVit(config) => format!(
                "{title}: TinyViT of widths {:?}, {} px",
                config.embed_dims, config.image_size
            ),
            ImageEncoderConfig::EfficientVit(config) => format!(
                "{title}: EfficientViT of widths {:?}, frames of {} px seen at {} px",
                config.width_list,
                self.image_size(),
                config.image_size
            ),
        }
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = json!({
            "image_encoder": self.vision_config.published(), "pixels": self.image_size(),
            "pixels_per_cell": self.prompt_encoder_config.patch_size,
            "channels": self.vision_config.output_channels(),
            "masks_per_prompt": self.mask_decoder_config.masks(),
        });
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => {
                facts["width"] = json!(config.hidden_size);
                facts["layers"] = json!(config.num_hidden_layers);
                facts["heads"] = json!(config.num_attention_heads);
            }
            ImageEncoderConfig::TinyVit(config) => {
                facts["widths"] = json!(config.embed_dims);
                facts["layers"] = json!(config.depths);
                facts["windows"] = json!(config.window_sizes[1..]);
            }
            ImageEncoderConfig::EfficientVit(config) => {
                facts["widths"] = json!(config.width_list);
                facts["layers"] = json!(config.depth_list);
                facts["encoder_pixels"] = json!(config.image_size);
            }
        }
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameter_counts().iter().sum()
    }

    fn entry_parameters(&self, entry: &Entry) -> u64 {
        let [encoder, decoder] = self.parameter_counts();
        if entry.name == IMAGE_ENCODER.name {
            encoder
        } else {
            decoder
        }
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        plain_names(source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let found = weights.renamed(plain_names)?;
        Ok(found
            .exact(settings.exact)
            .quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        ImageEncoder::load(self, weights)?;
        MaskDecoder::load(self, weights)?;
        weights.finish(&[FREQUENCIES_AGAIN])
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        let grid = self.grid();
        Some(match word {
            "colours" => Dimension::Exactly(3),
            "H" | "W" => match self.vision_config.vit() {
                Some(vision) if !vision.use_abs_pos => Dimension::MultipleOf(vision.patch_size),
                _ => Dimension::Exactly(self.encoder_size()),
            },
            "C" => Dimension::Exactly(self.vision_config.output_channels()),
            "grid" => Dimension::Exactly(grid),
            "fine" => Dimension::Exactly(4 * grid),
            "masks" => Dimension::Exactly(self.mask_decoder_config.masks()),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry.sizes.iter().map(|size| size.with(1, 1)).collect()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let (side, grid) = (self.image_size(), self.grid());
        if entry.name == IMAGE_ENCODER.name {
            let side = self.encoder_size();
            made.normal(PIXELS.name, &[1, 3, side, side], 1.0, false)?;
            return Ok(made.take());
        }
        let (prompts, points) = (sizes.or_zero(PROMPTS.name), sizes.or_zero(POINTS.name));
        made.normal(
            PICTURES.name,
            &[1, self.vision_config.output_channels(), grid, grid],
            1.0,
            false,
        )?;
        made.constant(LABELS.name, &[prompts, points], 1.0)?;
        let mut tensors = made.take();
        // Spread over the frame.
        let place = |at: usize| (at * 7919 % 997) as f32 / 997.0 * side as f32;
        let places = (0..2 * prompts * points).map(place).collect();
        tensors.insert_floats(COORDINATES.name, &[prompts, points, 2], places)?;
        Ok(tensors)
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (pictures, _, height, width) = inputs.required(entry.inputs[0].name)?.dims4()?;
        if entry.name == IMAGE_ENCODER.name {
            let costs = self.encode_cost([height, width]);
            let sizes = vec![("batch", pictures), ("height", height), ("width", width)];
            return Ok(Work::of_batch(pictures, sizes, &costs));
        }
        let prompts = read_prompts(inputs)?;
        let count = prompts.count()?.max(pictures);
        let shared = prompts.masks.is_none() && pictures == 1;
        let costs = match shared && self.shares_cells(count, prompts.tokens()) {
            true => self.decode_shared_cost(height * width, prompts.tokens()),
            false => self.decode_cost(height * width, prompts.tokens()),
        };
        let sizes = vec![
            ("pictures", pictures),
            ("prompts", count),
            ("tokens", prompts.tokens()),
        ];
        Ok(Work::of_batch(count, sizes, &costs))
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        if entry.name == IMAGE_ENCODER.name {
            return Ok(Box::new(ImageEncoder::load_alone(self, &weights)?));
        }
        Ok(Box::new(MaskDecoder::load_alone(self, &weights)?))
    }
}

impl ImageEncoder {
    /// From the weights of all networks, of which it takes its own.
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load_alone(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let encoder = Self::load(config, weights)?;
        weights.finish(&[
            "shared_image_embedding.",
            "prompt_encoder.",
            "mask_decoder.",
        ])?;
        Ok(encoder)
    }
}

impl MaskDecoder {
    /// From the weights of all networks, of which it takes its own.
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load_alone(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let decoder = Self::load(config, weights)?;
        weights.finish(&["vision_encoder.", FREQUENCIES_AGAIN])?;
        Ok(decoder)
    }
}

impl Runnable for ImageEncoder {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let pictures = ops::to_nhwc(inputs.required(PIXELS.name)?)?;
        Ok(pass(
            move |trace| self.forward(&pictures, trace),
            |embeddings| {
                Ok([(EMBEDDED.name.to_owned(), ops::to_nchw(embeddings)?)]
                    .into_iter()
                    .collect())
            },
        ))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        self.costed(traced)
    }
}

/// The prompts among an entry's inputs.
fn read_prompts(inputs: &NamedTensors) -> Result<Prompts> {
    let points = match (inputs.get(COORDINATES.name), inputs.get(LABELS.name)) {
        (Some(places), Some(labels)) => Some(Points {
            places: pairs(places)?,
            labels: labels
                .to_vec2::<f32>()?
                .into_iter()
                .map(|row| row.into_iter().map(label).collect())
                .collect::<Result<_>>()?,
        }),
        (None, None) => None,
        _ => {
            return Err(Error::Shape(format!(
                "\"{}\" and \"{}\" go together; only one of them is there",
                COORDINATES.name, LABELS.name
            )));
        }
    };
    let boxes = match inputs.get(BOXES.name) {
        Some(boxes) => {
            let rows = boxes.to_vec2::<f32>()?.into_iter();
            let corners = rows.map(|row| {
                row.try_into()
                    .map_err(|_| Error::Shape("boxes of four values".into()))
            });
            Some(corners.collect::<Result<_>>()?)
        }
        None => None,
    };
    let masks = inputs.get(MASK.name).map(ops::to_nhwc).transpose()?;
    Ok(Prompts {
        points,
        boxes,
        masks,
    })
}

fn label(number: f32) -> Result<PointLabel> {
    PointLabel::from_number(number as i64).ok_or_else(|| {
        Error::Shape(format!(
            "point label {number}; expected one of {:?}",
            PointLabel::NUMBERS
        ))
    })
}

fn pairs(places: &Tensor) -> Result<Vec<Vec<[f32; 2]>>> {
    let places = places.to_vec3::<f32>()?.into_iter();
    let pair = |pair: Vec<f32>| {
        pair.try_into()
            .map_err(|_| Error::Shape("points of two values".into()))
    };
    places
        .map(|row| row.into_iter().map(pair).collect())
        .collect()
}

impl Runnable for MaskDecoder {
    /// One picture for all prompts, or one for each; without prompts, one run for each.
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let embeddings = ops::to_nhwc(inputs.required(PICTURES.name)?)?;
        let prompts = read_prompts(inputs)?;
        let (pictures, count) = (embeddings.dim(0)?, prompts.count()?);
        let shown = prompts.tokens() > 0 || prompts.masks.is_some();
        if pictures != 1 && pictures != count && shown {
            return Err(PrepareError::Failed(Error::Shape(format!(
                "{pictures} pictures and {count} prompts; expected one picture, or one for each prompt"
            ))));
        }
        let mut work = Vec::with_capacity(pictures);
        for index in 0..pictures {
            let picture = self.prepare(&embeddings.narrow(0, index, 1)?.contiguous()?)?;
            let own = match shown && pictures > 1 {
                true => prompts.some(index, 1)?,
                false => prompts.clone(),
            };
            work.push((picture, own));
        }
        Ok(Box::new(Decode {
            model: self,
            work,
            decoded: Vec::new(),
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        match traced {
            "enlarged" => "masks",
            "prompts" => "layers.0",
            part => part.strip_suffix(".tokens").unwrap_or(part),
        }
    }
}

struct Decode<'a> {
    model: &'a MaskDecoder,
    work: Vec<(PreparedPicture, Prompts)>,
    decoded: Vec<Decoded>,
}

impl Prepared for Decode<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        self.decoded.clear();
        for (picture, prompts) in &self.work {
            self.decoded
                .push(self.model.decode(picture, prompts, trace)?);
        }
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        if self.decoded.is_empty() {
            return Err(not_run());
        }
        let join = |of: fn(&Decoded) -> &Tensor| {
            let parts: Vec<&Tensor> = self.decoded.iter().map(of).collect();
            Tensor::cat(&parts, 0)
        };
        let mut outputs = NamedTensors::default();
        outputs.insert(MASKS.name, join(|decoded| &decoded.masks)?);
        outputs.insert(QUALITIES.name, join(|decoded| &decoded.qualities)?);
        Ok(outputs)
    }
}
