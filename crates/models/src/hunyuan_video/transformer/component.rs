//! The transformer from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::names::{authors_prefix, is_diffusers};
use super::runs::{
    FRAMES, GUIDANCE, HEIGHT, HIDDEN, IMAGE_LATENTS, LATENTS, MOST_STEPS, NEGATIVE, POOLED,
    SAMPLER, SHIFT, STEPS, Sampler, TEXT, TEXT_MASK, TIMESTEP, TOKENS, TRANSFORMER, WIDTH, lengths,
    steps,
};
use super::{VideoLayout, VideoTransformer, VideoTransformerConfig, parameters, plain_names};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, Recognised, Runnable, Size, Sizes, Work,
};
use crate::{Error, Result, low_bit};

/// The transformer of HunyuanVideo and Magic 1-For-1.
pub static COMPONENT: Component = Component {
    name: "HunyuanVideo transformer",
    classes: &[VideoTransformerConfig::CLASS],
    keys: VideoTransformerConfig::KEYS,
    folders: &["transformer"],
    beside: &[],
    entries: &[TRANSFORMER, SAMPLER],
    recognise,
    open: |bytes, label| Ok(Box::new(VideoTransformerConfig::from_json(bytes, label)?)),
};

/// Pixels along a latent cell where no autoencoder says.
const USUAL_RATIO: usize = 8;

fn recognise(
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    if low_bit::is_quantized(source) {
        let class = metadata.get("model_class");
        let ours = class.is_some_and(|class| class.contains("HunyuanVideo"))
            || source.info("x_embedder.proj.weight").is_some()
                && source.info("context_embedder.proj_in.weight").is_some();
        return Ok(ours.then(|| low_bit::describe(source, metadata, "HunyuanVideo transformer")));
    }
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
        let activations = settings.activations.unwrap_or_default();
        let found = match weights {
            ComponentWeights::Stored(source) => parameters(self, source.clone(), activations)?,
            ComponentWeights::Random(random) if random.low_bit => {
                let layout = Box::new(VideoLayout::of(self));
                low_bit::with_random(layout, weights.plain(), activations)
            }
            ComponentWeights::Random(_) => weights.plain(),
        };
        Ok(found.quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        VideoTransformer::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        let sampler = entry.name == SAMPLER.name;
        let negative = |port: &Port| NEGATIVE.iter().any(|known| known.name == port.name);
        let kept = |port: &&Port| match port.name {
            // Without embedded guidance the loop's strength goes with what it leads away from.
            name if name == GUIDANCE.name => sampler || self.guidance_embeds,
            name if name == IMAGE_LATENTS.name => self.image_condition_type.is_some(),
            _ => true,
        };
        let own = |port: &Port| Port {
            optional: negative(port) || (sampler && port.name == GUIDANCE.name),
            ..*port
        };
        entry.inputs.iter().filter(kept).map(own).collect()
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "C" => Dimension::Exactly(self.in_channels),
            "C_out" => Dimension::Exactly(self.out_channels),
            "steps" => Dimension::Exactly(MOST_STEPS + 1),
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
        entry: &Entry,
        sizes: &Sizes,
        beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let ratio = beside.get("pixels_per_cell").unwrap_or(USUAL_RATIO).max(1);
        let [frames, height, width, tokens] =
            [FRAMES, HEIGHT, WIDTH, TOKENS].map(|size| sizes.or_zero(size.name));
        let latent =
            |channels: usize, frames: usize| [1, channels, frames, height / ratio, width / ratio];
        if entry.name == SAMPLER.name {
            made.normal(LATENTS.name, &latent(self.out_channels, frames), 1.0, false)?;
            made.constant(SHIFT.name, &[1], 5.0)?;
            if self.image_condition_type.is_some() {
                let given = latent(self.out_channels, 1);
                made.normal(IMAGE_LATENTS.name, &given, 1.0, false)?;
            }
        } else {
            let shape = latent(self.in_channels, frames);
            made.normal(HIDDEN.name, &shape, 1.0, false)?;
            made.constant(TIMESTEP.name, &[1], 500.0)?;
        }
        made.normal(TEXT.name, &[1, tokens, self.text_embed_dim], 1.0, false)?;
        made.constant(TEXT_MASK.name, &[1, tokens], 1.0)?;
        made.normal(POOLED.name, &[1, self.pooled_projection_dim], 1.0, false)?;
        let sampler = entry.name == SAMPLER.name;
        if self.guidance_embeds {
            let strength = if sampler { 6.0 } else { 6000.0 };
            made.constant(GUIDANCE.name, &[1], strength)?;
        }
        let mut tensors = made.take();
        if sampler {
            tensors.insert_ids(STEPS.name, &[1], vec![4])?;
        }
        Ok(tensors)
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let hidden = inputs.required(entry.inputs[0].name)?;
        let &[batch, _, frames, height, width] = hidden.dims() else {
            return Err(Error::Shape(format!("a clip of shape {:?}", hidden.dims())));
        };
        let size = [frames, height, width];
        let longest = |mask: &Port| -> Result<usize> {
            Ok(lengths(inputs, mask.name)?.into_iter().max().unwrap_or(0))
        };
        let words = longest(&TEXT_MASK)?;
        let mut costs = self.step_cost(size, words);
        let steps = steps(inputs)?.unwrap_or(1);
        if inputs.get(NEGATIVE[1].name).is_some() {
            let others = self.step_cost(size, longest(&NEGATIVE[1])?);
            costs
                .iter_mut()
                .zip(&others)
                .for_each(|(cost, other)| cost.add(other));
        }
        let sizes = vec![
            ("batch", batch),
            ("latent_frames", frames),
            ("latent_height", height),
            ("latent_width", width),
            ("text_tokens", words),
            ("steps", steps),
        ];
        // Clips run one after the other: the weights are read for each.
        let times = (batch * steps) as u64;
        let costs = costs.iter().map(|cost| cost.repeated(times));
        Ok(Work {
            sizes,
            costs: costs.collect(),
            ..Work::default()
        })
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        let model = VideoTransformer::load(self, &weights)?;
        Ok(match entry.name == SAMPLER.name {
            true => Box::new(Sampler(model)),
            false => Box::new(model),
        })
    }
}
