//! The transformer from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Tensor, Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::names::{authors_prefix, is_diffusers};
use super::{VideoConditioning, VideoTransformer, VideoTransformerConfig, plain_names};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, SizeName, Sizes, Work,
    pass,
};
use crate::hunyuan_video::clip::{to_channels_first, to_channels_last};
use crate::{Error, Result};

/// The transformer of HunyuanVideo and Magic 1-For-1.
pub static COMPONENT: Component = Component {
    name: "HunyuanVideo transformer",
    classes: &[VideoTransformerConfig::CLASS],
    keys: VideoTransformerConfig::KEYS,
    folders: &["transformer"],
    beside: &[],
    entries: &[TRANSFORMER],
    recognise,
    open: |bytes, label| Ok(Box::new(VideoTransformerConfig::from_json(bytes, label)?)),
};

const HIDDEN: Port = Port::float("hidden_states", &["B", "C", "F", "H", "W"]);
const TIMESTEP: Port = Port::float("timestep", &["B"]);
const TEXT: Port = Port::float("encoder_hidden_states", &["B", "L", "D"]);
const TEXT_MASK: Port = Port::mask("encoder_attention_mask", &["B", "L"]);
const POOLED: Port = Port::float("pooled_projections", &["B", "P"]);
const GUIDANCE: Port = Port::float("guidance", &["B"]).optional();
const SAMPLE: Port = Port::float("sample", &["B", "C_out", "F", "H", "W"]);

const TRANSFORMER: Entry = Entry {
    name: "transformer",
    about: "Evaluate a transformer over clips once",
    inputs: &[HIDDEN, TIMESTEP, TEXT, TEXT_MASK, POOLED, GUIDANCE],
    outputs: &[SAMPLE],
    sizes: &[FRAMES, HEIGHT, WIDTH, TOKENS],
    settings: &[Setting::Quantization],
};

const FRAMES: SizeName = SizeName {
    name: "frames",
    unit: "N",
    about: "Latent frames of the clip (default: 1)",
    usual: Some(1),
    smallest: 1,
    largest: 4096,
    of_inputs: true,
};
const HEIGHT: SizeName = SizeName {
    name: "height",
    unit: "PIXELS",
    about: "Height of the clip in pixels (default: 544)",
    usual: Some(544),
    smallest: 1,
    largest: 8192,
    of_inputs: true,
};
const WIDTH: SizeName = SizeName {
    name: "width",
    unit: "PIXELS",
    about: "Width of the clip in pixels (default: 960)",
    usual: Some(960),
    ..HEIGHT
};
const TOKENS: SizeName = SizeName {
    name: "tokens",
    unit: "N",
    about: "Tokens of the text (default: 402, of which 146 are a picture's)",
    usual: Some(402),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};

/// Pixels along a latent cell where no autoencoder says.
const USUAL_RATIO: usize = 8;

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let (layout, patches) = match authors_prefix(source) {
        Some("") | Some("module.") => ("the authors' names", "img_in.proj.weight"),
        Some(_) => ("Magic 1-For-1's names", "img_in.proj.weight"),
        None if is_diffusers(source) => ("diffusers names", "x_embedder.proj.weight"),
        None => return Ok(None),
    };
    let prefix = authors_prefix(source).unwrap_or_default();
    let shape = source.info(&format!("{prefix}{patches}"));
    let shape = shape.map(|(_, shape)| shape).unwrap_or_default();
    let details = json!({"width": shape.first(), "channels": shape.get(1)});
    let name = format!("HunyuanVideo transformer ({layout})");
    Ok(Some(Recognised::with(name, details)))
}

impl ComponentConfig for VideoTransformerConfig {
    fn description(&self) -> String {
        let condition = match self.image_condition_type {
            None => "text to video",
            Some(super::ImageCondition::LatentConcat) => "first frame beside the noise",
            Some(super::ImageCondition::TokenReplace) => "first frame in place of noise",
        };
        format!(
            "width {}, {} double and {} single blocks, {} channels in, {} out, {condition}{}",
            self.width(),
            self.num_layers,
            self.num_single_layers,
            self.in_channels,
            self.out_channels,
            match self.guidance_embeds {
                true => ", guidance embedding",
                false => "",
            }
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "width": self.width(), "double_blocks": self.num_layers, "single_blocks": self.num_single_layers,
            "refiner_blocks": self.num_refiner_layers, "latent_channels": self.out_channels,
            "channels_in": self.in_channels, "text_channels": self.text_embed_dim,
            "pooled_channels": self.pooled_projection_dim, "patch_size": self.patch_size,
            "patch_frames": self.patch_size_t, "guidance_embedding": self.guidance_embeds,
            "image_condition": self.image_condition_type.map(|kind| format!("{kind:?}")),
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        plain_names(self, source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let found = match weights {
            ComponentWeights::Stored(source) => {
                WeightsBuilder::from_source(plain_names(self, source.clone())?)
            }
            ComponentWeights::Random(_) => weights.plain(),
        };
        Ok(found.quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        VideoTransformer::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        let kept = |port: &&Port| port.name != GUIDANCE.name || self.guidance_embeds;
        let required = |port: &Port| Port {
            optional: false,
            ..*port
        };
        entry.inputs.iter().filter(kept).map(required).collect()
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "C" => Dimension::Exactly(self.in_channels),
            "C_out" => Dimension::Exactly(self.out_channels),
            "F" => Dimension::MultipleOf(self.patch_size_t),
            "H" | "W" => Dimension::MultipleOf(self.patch_size),
            "D" => Dimension::Exactly(self.text_embed_dim),
            "P" => Dimension::Exactly(self.pooled_projection_dim),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, beside: &Sizes) -> Vec<Size> {
        let ratio = beside.get("pixels_per_cell").unwrap_or(USUAL_RATIO);
        let multiple = |name: &str| match name {
            "frames" => self.patch_size_t,
            "tokens" => 1,
            _ => ratio.saturating_mul(self.patch_size),
        };
        let declared = entry.sizes.iter();
        declared
            .map(|size| {
                let multiple = multiple(size.name);
                let mut size = size.with(0, multiple);
                size.default = size.default.next_multiple_of(multiple.max(1));
                size
            })
            .collect()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let ratio = beside.get("pixels_per_cell").unwrap_or(USUAL_RATIO).max(1);
        let [frames, height, width, tokens] =
            [FRAMES, HEIGHT, WIDTH, TOKENS].map(|size| sizes.or_zero(size.name));
        let latent = [1, self.in_channels, frames, height / ratio, width / ratio];
        made.normal(HIDDEN.name, &latent, 1.0, false)?;
        made.constant(TIMESTEP.name, &[1], 500.0)?;
        made.normal(TEXT.name, &[1, tokens, self.text_embed_dim], 1.0, false)?;
        made.constant(TEXT_MASK.name, &[1, tokens], 1.0)?;
        made.normal(POOLED.name, &[1, self.pooled_projection_dim], 1.0, false)?;
        if self.guidance_embeds {
            made.constant(GUIDANCE.name, &[1], 6000.0)?;
        }
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let hidden = inputs.required(HIDDEN.name)?;
        let &[batch, _, frames, height, width] = hidden.dims() else {
            return Err(Error::Shape(format!("a clip of shape {:?}", hidden.dims())));
        };
        let lengths = lengths(inputs)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let costs = self.step_cost([frames, height, width], longest);
        let sizes = vec![
            ("batch", batch),
            ("latent_frames", frames),
            ("latent_height", height),
            ("latent_width", width),
            ("text_tokens", longest),
        ];
        // Clips run one after the other: the weights are read for each.
        let costs = costs.iter().map(|cost| cost.repeated(batch as u64));
        Ok(Work {
            sizes,
            costs: costs.collect(),
            ..Work::default()
        })
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(VideoTransformer::load(self, &weights)?))
    }
}

/// Valid tokens of each text: they come first.
fn lengths(inputs: &NamedTensors) -> Result<Vec<usize>> {
    let mask = inputs.mask(TEXT_MASK.name)?.unwrap_or_default();
    let length = |(row, mask): (usize, &Vec<bool>)| {
        let count = mask.iter().take_while(|keep| **keep).count();
        let all = mask.iter().filter(|keep| **keep).count();
        match count == all && count > 0 {
            true => Ok(count),
            false => Err(Error::Shape(format!(
                "row {row} of \"{}\" keeps {all} tokens, {count} of them from the first on; expected at least one, and \
                 none behind a hidden one",
                TEXT_MASK.name
            ))),
        }
    };
    mask.iter().enumerate().map(length).collect()
}

impl Runnable for VideoTransformer {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let hidden = to_channels_last(inputs.required(HIDDEN.name)?)?;
        let times: Vec<f32> = inputs.required(TIMESTEP.name)?.to_vec1()?;
        let text = inputs.required(TEXT.name)?;
        let pooled = inputs.required(POOLED.name)?;
        let guidance = match inputs.get(GUIDANCE.name) {
            Some(guidance) => guidance.to_vec1::<f32>()?.into_iter().map(Some).collect(),
            None => vec![None; times.len()],
        };
        let mut clips = Vec::with_capacity(times.len());
        for (row, length) in lengths(inputs)?.into_iter().enumerate() {
            let own = |x: &Tensor| x.narrow(0, row, 1)?.contiguous();
            let by = VideoConditioning {
                tokens: own(text)?.narrow(1, 0, length)?.contiguous()?,
                pooled: own(pooled)?,
                guidance: guidance[row],
            };
            clips.push((own(&hidden)?, times[row], by));
        }
        Ok(pass(
            move |trace| {
                let clips = clips
                    .iter()
                    .map(|(hidden, time, by)| self.forward(hidden, *time, by, trace));
                Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)
            },
            |sample| {
                let sample = to_channels_first(sample)?;
                Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
            },
        ))
    }

    /// Blocks of a kind are one part.
    fn part<'a>(&self, traced: &'a str) -> &'a str {
        match traced.split('.').next() {
            Some("norm_out") => "proj_out",
            Some("time_text_embed") => "x_embedder",
            Some(kind) => kind,
            None => traced,
        }
    }
}
