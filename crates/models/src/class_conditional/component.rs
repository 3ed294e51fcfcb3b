//! The networks from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::names::{layout, plain_names};
use super::runs::{
    CLASSES, GUIDANCE, HIDDEN, LATENTS, NOISE, SAMPLER, STEPS, SamplerRun, TIMESTEP, TRANSFORMER,
    given_sampler,
};
use super::sampler::{MOST_STEPS, Sampler};
use super::{Architecture, ClassConditionalConfig, ClassConditionalTransformer};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, Recognised, Runnable, Size, Sizes, Work,
};

/// UViT, USiT, DiT and SiT on latents of DC-AE.
pub static COMPONENT: Component = Component {
    name: "class-conditional transformer",
    classes: &ClassConditionalConfig::CLASSES,
    keys: &ClassConditionalConfig::KEYS,
    folders: &["transformer"],
    beside: &[],
    entries: &[TRANSFORMER, SAMPLER],
    recognise,
    open: |bytes, label| Ok(Box::new(ClassConditionalConfig::from_json(bytes, label)?)),
};

/// Steps of made-up inputs.
const EXAMPLE_STEPS: usize = 4;
/// A time between the ends, for each kind of network.
const EXAMPLE_TIMES: [f32; 2] = [500.0, 0.5];

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let Some(found) = layout(source) else {
        return Ok(None);
    };
    let network = match found.architecture {
        Architecture::UVit => "UViT or USiT",
        Architecture::Dit => "DiT or SiT",
    };
    let names = match found.prefix {
        "" => "",
        "diffusion_model." => ", as published with its autoencoder",
        _ => ", as its trainer writes it",
    };
    let details = json!({
        "width": found.patches[0], "latent channels": found.patches[1], "patch size": found.patches[2],
    });
    let name = format!("class-conditional transformer ({network}{names})");
    Ok(Some(Recognised::with(name, details)))
}

impl ComponentConfig for ClassConditionalConfig {
    fn description(&self) -> String {
        let side = self.input_size;
        format!(
            "{}: width {}, {} blocks, {} classes, latents of {side} x {side} x {}, {} in {} steps",
            self.title(),
            self.hidden_size,
            self.depth,
            self.num_classes,
            self.in_channels,
            self.eval_scheduler.name(),
            self.num_inference_steps,
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "network": self.title(), "width": self.hidden_size, "blocks": self.depth, "heads": self.num_heads,
            "latent_side": self.input_size, "latent_channels": self.in_channels, "patch_size": self.patch_size,
            "classes": self.num_classes, "class_of_none": self.null_class(), "learned_variance": self.learn_sigma,
            "scheduler": self.eval_scheduler.name(), "steps": self.num_inference_steps,
            "autoencoder": self.autoencoder,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters()
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
            .quantize(settings.quantization, None)
            .at(&settings.location))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        ClassConditionalTransformer::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        let drawn = self.eval_scheduler.draws_noise();
        let kept = |port: &&Port| port.name != NOISE.name || drawn;
        entry.inputs.iter().filter(kept).copied().collect()
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(Dimension::Exactly(match word {
            "C" => self.in_channels,
            "C_out" => self.output_channels(),
            "H" | "W" => self.input_size,
            "class" => self.class_rows(),
            "steps" => MOST_STEPS + 1,
            _ => return None,
        }))
    }

    fn sizes(&self, _entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        Vec::new()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        _sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let latent = [1, self.in_channels, self.input_size, self.input_size];
        let class = (self.num_classes / 2) as u32;
        if entry.name == TRANSFORMER.name {
            let time = EXAMPLE_TIMES[usize::from(self.eval_scheduler.is_flow())];
            made.normal(HIDDEN.name, &latent, 1.0, false)?;
            made.constant(TIMESTEP.name, &[1], time)?;
            let mut tensors = made.take();
            tensors.insert_ids(CLASSES.name, &[1], vec![class])?;
            return Ok(tensors);
        }
        made.normal(LATENTS.name, &latent, 1.0, false)?;
        let guidance = if self.null_class().is_some() {
            1.5
        } else {
            1.0
        };
        made.constant(GUIDANCE.name, &[1], guidance)?;
        for draw in 0..Sampler::new(self, Some(EXAMPLE_STEPS))?.draws() {
            made.normal(&format!("{}{draw}", NOISE.name), &latent, 1.0, false)?;
        }
        let mut tensors = made.take();
        tensors.insert_ids(CLASSES.name, &[1], vec![class])?;
        tensors.insert_ids(STEPS.name, &[1], vec![EXAMPLE_STEPS as u32])?;
        Ok(tensors)
    }

    /// Of a way whose steps are found as it goes nothing is known before.
    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let batch = inputs.required(entry.inputs[0].name)?.dim(0)?;
        let mut sizes = vec![("batch", batch), ("latent_side", self.input_size)];
        if entry.name == TRANSFORMER.name {
            return Ok(Work::of_batch(batch, sizes, &self.step_cost()));
        }
        let (sampler, steps, guidance) = given_sampler(self, inputs)?;
        sizes.push(("steps", steps));
        let Some(evaluations) = sampler.evaluations() else {
            return Ok(Work {
                sizes,
                ..Work::default()
            });
        };
        let branches = if guidance == 1.0 { 1 } else { 2 };
        let costs = self.step_cost().into_iter();
        let costs = costs.map(|cost| {
            cost.for_batch(batch * branches)
                .repeated(evaluations as u64)
        });
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
        let model = ClassConditionalTransformer::load(self, &weights)?;
        Ok(match entry.name == SAMPLER.name {
            true => Box::new(SamplerRun(model)),
            false => Box::new(model),
        })
    }
}
