//! The transformer's configuration with that of the tokenizer beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::super::generate::Generator;
use super::super::tokenizer::{Parts, Tokenizer, TokenizerConfig, builder};
use super::super::transformer::{Codewords, Transformer, TransformerConfig};
use super::entries::*;
use super::runs::{Draws, Head, Taught};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Neighbour, Recognised, Runnable, Size, Sizes, Work,
};
use crate::cost::Cost;
use crate::{Error, Result};

/// HART's transformer.
pub static COMPONENT: Component = Component {
    name: "HART transformer",
    classes: &TransformerConfig::CLASSES,
    keys: &TransformerConfig::KEYS,
    folders: &["llm"],
    beside: &["tokenizer"],
    entries: &[TRANSFORMER, DIFFUSION_HEAD, GENERATE],
    recognise,
    open: |bytes, label| {
        Ok(Box::new(Configuration {
            config: TransformerConfig::from_json(bytes, label)?,
            label: label.to_owned(),
            tokenizer: None,
        }))
    },
};

/// The tokenizer beside the transformer.
struct Beside {
    config: TokenizerConfig,
    label: String,
    /// Its file, or why there is none.
    weights: std::result::Result<Arc<dyn TensorSource>, String>,
}

struct Configuration {
    config: TransformerConfig,
    label: String,
    tokenizer: Option<Beside>,
}

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let has = |name: &str| source.info(name).is_some();
    let ours = has("head_nm.ln_wo_grad.weight") && has("diffloss.net.input_proj.weight");
    Ok(ours.then(|| Recognised::new("HART transformer")))
}

impl Configuration {
    /// The codewords that the tokenizer has; without one, those of the class's defaults.
    fn codewords(&self) -> Codewords {
        let default = TokenizerConfig::default();
        let config = self
            .tokenizer
            .as_ref()
            .map_or(&default, |beside| &beside.config);
        Codewords {
            count: config.vocab_size,
            width: config.z_channels,
        }
    }

    /// The codewords that a file of the transformer was made for.
    fn stored_codewords(&self, weights: &Weights) -> Result<Codewords> {
        let side = |name: &str, at: usize| weights.shape(name)?.get(at).copied();
        let expected = self.codewords();
        let found = Codewords {
            count: side("head.weight", 0).unwrap_or(expected.count),
            width: side("word_embed.weight", 1).unwrap_or(expected.width),
        };
        let Some(beside) = &self.tokenizer else {
            return Ok(found);
        };
        for (key, wanted, found) in [
            ("vocab_size", expected.count, found.count),
            ("z_channels", expected.width, found.width),
        ] {
            if wanted != found {
                return Err(Error::Config(format!(
                    "{}: `{key}` is {wanted}, but the transformer was made for {found}; expected the tokenizer \
                     that it was trained with",
                    beside.label
                )));
            }
        }
        Ok(expected)
    }

    fn transformer(&self, weights: &Weights) -> Result<Transformer> {
        Transformer::load(&self.config, self.stored_codewords(weights)?, weights)
    }

    /// The tokenizer beside, with these parts.
    fn tokenizer(
        &self,
        entry: &Entry,
        parts: Parts,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Tokenizer> {
        let Some(beside) = &self.tokenizer else {
            return Err(Error::Config(format!(
                "{}: {} needs the tokenizer too, and there is no tokenizer/config.json beside this folder; \
                 expected the model's whole folder",
                self.label, entry.name
            )));
        };
        let weights = match (weights, &beside.weights) {
            (ComponentWeights::Random(random), _) => ComponentWeights::Random(*random),
            (_, Ok(source)) => ComponentWeights::Stored(source.clone()),
            (_, Err(problem)) => return Err(Error::Config(problem.clone())),
        };
        let weights = builder(&weights, settings)?.build()?;
        Tokenizer::load(&beside.config, &weights, parts)
    }

    /// Pixels of a picture's side.
    fn pixels(&self) -> usize {
        let ratio = self
            .tokenizer
            .as_ref()
            .map_or(16, |beside| beside.config.ratio());
        ratio * self.side()
    }

    fn side(&self) -> usize {
        self.config.patch_nums.last().copied().unwrap_or(0)
    }

    fn places(&self) -> usize {
        self.side() * self.side()
    }
}

impl ComponentConfig for Configuration {
    fn description(&self) -> String {
        format!(
            "width {}, {} blocks, {} rows of text, {} scales to {side}×{side}",
            self.config.embed_dim,
            self.config.depth,
            self.config.context_token,
            self.config.patch_nums.len(),
            side = self.side(),
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let codewords = self.codewords();
        let facts = json!({
            "width": self.config.embed_dim, "blocks": self.config.depth,
            "heads": self.config.num_heads, "context": self.config.context_token,
            "context_width": self.config.context_dim, "patch_nums": self.config.patch_nums,
            "codewords": codewords.count, "latent_channels": codewords.width,
            "parameters_of_diffusion_head": self.config.head_parameters(codewords),
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.config.parameter_count(self.codewords())
    }

    fn attach(&mut self, neighbour: &Neighbour) -> Result<()> {
        let config = TokenizerConfig::from_json(neighbour.config, neighbour.label)?;
        self.tokenizer = Some(Beside {
            config,
            label: neighbour.label.to_owned(),
            weights: (neighbour.weights)().map_err(|error| error.to_string()),
        });
        Ok(())
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights.plain().quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        self.transformer(weights).map(drop)
    }

    /// Without the tokenizer's configuration nothing is said of its codewords.
    fn dimension(&self, word: &str) -> Option<Dimension> {
        let size = match (word, self.tokenizer.as_ref().map(|beside| &beside.config)) {
            ("L", _) => self.config.context_token,
            ("D", _) => self.config.context_dim,
            ("C", _) => self.config.embed_dim,
            ("places", _) => self.places(),
            ("V", Some(tokenizer)) => tokenizer.vocab_size,
            ("z", Some(tokenizer)) => tokenizer.z_channels,
            ("2z", Some(tokenizer)) => 2 * tokenizer.z_channels,
            _ => return None,
        };
        Some(Dimension::Exactly(size))
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
        let (config, codewords) = (&self.config, self.codewords());
        if entry.name == DIFFUSION_HEAD.name {
            let places = self.places();
            made.normal(NOISY.name, &[places, codewords.width], 1.0, false)?;
            made.constant(TIMESTEP.name, &[places], 500.0)?;
            made.normal(CONDITION.name, &[places, config.embed_dim], 1.0, false)?;
            return Ok(made.take());
        }
        let context = [1, config.context_token, config.context_dim];
        made.normal(CONTEXT.name, &context, 1.0, false)?;
        made.constant(MASK.name, &context[..2], 1.0)?;
        if entry.name == GENERATE.name {
            let shape = [1, self.places(), codewords.width];
            made.constant(GUIDANCE.name, &[1], 4.5)?;
            made.normal(LATENTS.name, &shape, 1.0, false)?;
            for step in 0..config.num_sampling_steps - 1 {
                made.normal(&format!("{}{step}", NOISE.name), &shape, 1.0, false)?;
            }
            return Ok(made.take());
        }
        let mut inputs = made.take();
        for (scale, side) in config.patch_nums.iter().enumerate() {
            let codes = (0..side * side).map(|at| ((at * 7919 + 11) % codewords.count) as u32);
            let name = format!("{}{scale}", CODES.name);
            inputs.insert_ids(&name, &[1, side * side], codes.collect())?;
        }
        Ok(inputs)
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (config, codewords) = (&self.config, self.codewords());
        let batch = inputs.required(entry.inputs[0].name)?.dim(0)?;
        let (sizes, costs) = if entry.name == DIFFUSION_HEAD.name {
            let cost = config.head_cost(codewords, batch);
            return Ok(Work {
                sizes: vec![("places", batch)],
                costs: vec![cost],
                ..Work::default()
            });
        } else if entry.name == TRANSFORMER.name {
            let costs = config.pass_cost(codewords, false);
            (vec![("batch", batch)], costs)
        } else {
            let guided = inputs.scalar(GUIDANCE.name)? != Some(0.0);
            let branches = if guided { 2 } else { 1 };
            let mut costs = config.pass_cost(codewords, guided);
            let once = config.head_cost(codewords, branches * self.places());
            costs.push(once.repeated(config.num_sampling_steps as u64));
            if let Some(beside) = &self.tokenizer {
                let decode = beside.config.decode_cost(self.side(), self.side());
                costs.push(Cost::sum("decode", &decode));
            }
            (vec![("batch", batch), ("pixels", self.pixels())], costs)
        };
        Ok(Work::of_batch(batch, sizes, &costs))
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let own = self.weights(weights, settings)?.build()?;
        let tokenizer = |parts: Parts| self.tokenizer(entry, parts, weights, settings);
        // The tokenizer first: what is missing is said before the larger file is read.
        Ok(if entry.name == DIFFUSION_HEAD.name {
            Box::new(Head(self.transformer(&own)?))
        } else if entry.name == TRANSFORMER.name {
            let tokenizer = tokenizer(Parts::Quantizer)?;
            Box::new(Taught {
                tokenizer,
                transformer: self.transformer(&own)?,
            })
        } else {
            let tokenizer = tokenizer(Parts::Decoder)?;
            Box::new(Draws(Generator::new(self.transformer(&own)?, tokenizer)))
        })
    }
}
