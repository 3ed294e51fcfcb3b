//! The language model from outside, alone and with the networks beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Quantization, Storage, Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value};

use super::super::generate::Generator;
use super::super::projector::{Projector, ProjectorConfig, Widths};
use super::super::tower::{Parts, Tower, TowerConfig};
use super::draws::{Draws, Reads};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Neighbour, Port, Recognised, Runnable, Setting, Size, SizeName, Sizes, Work,
};
use crate::cost::Cost;
use crate::language_model::{LanguageModel, LanguageModelConfig};
use crate::{Error, Result};

/// Llama within VILA-U.
pub static COMPONENT: Component = Component {
    name: "Llama language model",
    classes: &["LlamaForCausalLM", "llama"],
    keys: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "model_max_length",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "tokenizer_model_max_length",
        "tokenizer_padding_side",
        "vocab_size",
    ],
    folders: &["llm"],
    beside: &["vision_tower", "mm_projector"],
    entries: &[LANGUAGE, GENERATE],
    recognise,
    open: |bytes, label| {
        Ok(Box::new(Configuration {
            config: LanguageModelConfig::llama(bytes, label)?,
            label: label.to_owned(),
            tower: None,
            projector: None,
        }))
    },
};

pub(super) const IDS: Port = Port::ids("input_ids", &["B", "T"], "V");
pub(super) const EMBEDS: Port = Port::float("inputs_embeds", &["B", "T", "H"]).optional();
pub(super) const MASK: Port = Port::mask("attention_mask", &["B", "T"]).optional();
pub(super) const LOGITS: Port = Port::float("logits", &["B", "T", "V"]);
pub(super) const HIDDEN: Port = Port::float("hidden_states", &["B", "T", "H"]);

const LANGUAGE: Entry = Entry {
    name: "language_model",
    about: "Predict the next token of texts, or of rows that are given as embeddings",
    inputs: &[IDS.optional(), EMBEDS, MASK],
    outputs: &[LOGITS, HIDDEN],
    sizes: &[SizeName {
        name: "context",
        unit: "N",
        about: "Tokens in all (default: 512)",
        usual: Some(512),
        smallest: 1,
        largest: 65_536,
        of_inputs: true,
    }],
    settings: &[Setting::Quantization],
};

pub(super) const GUIDANCE: Port = Port::scalar("guidance");
pub(super) const CODES: Port = Port::ids("codes", &["n", "places", "D"], "codewords");
pub(super) const FEATURES: Port = Port::float("features", &["n", "h", "w", "C"]);
pub(super) const IMAGE: Port = Port::float("image", &["n", "3", "pixels", "pixels"]);

const GENERATE: Entry = Entry {
    name: "generate",
    about: "Draw from tokens, the likeliest code everywhere",
    inputs: &[IDS, MASK, GUIDANCE],
    outputs: &[CODES, FEATURES, IMAGE],
    sizes: &[],
    settings: &[Setting::Quantization],
};

/// Tokens of made-up prompts.
const PROMPT: usize = 12;

/// A network beside this one.
struct Beside<C> {
    config: C,
    /// Its file, or why there is none.
    weights: std::result::Result<Arc<dyn TensorSource>, String>,
}

impl<C> Beside<C> {
    fn new(config: C, neighbour: &Neighbour) -> Self {
        Self {
            config,
            weights: (neighbour.weights)().map_err(|error| error.to_string()),
        }
    }

    fn weights(&self, weights: &ComponentWeights, quantization: Quantization) -> Result<Weights> {
        let weights = match (weights, &self.weights) {
            (ComponentWeights::Random(random), _) => ComponentWeights::Random(*random),
            (_, Ok(source)) => ComponentWeights::Stored(source.clone()),
            (_, Err(problem)) => return Err(Error::Config(problem.clone())),
        };
        weights.plain().quantize(quantization, None).build()
    }
}

struct Configuration {
    config: LanguageModelConfig,
    label: String,
    tower: Option<Beside<TowerConfig>>,
    projector: Option<Beside<ProjectorConfig>>,
}

fn recognise(
    _source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    // Many models have Llama's names.
    Ok(None)
}

impl Configuration {
    /// A network that drawing needs.
    fn needed<'a, C>(&self, beside: &'a Option<Beside<C>>, folder: &str) -> Result<&'a Beside<C>> {
        beside.as_ref().ok_or_else(|| {
            Error::Config(format!(
                "{}: generate needs {folder} too, and there is no {folder}/config.json beside this folder; \
                 expected the model's whole folder",
                self.label
            ))
        })
    }

    fn generator(&self, weights: &ComponentWeights, settings: &LoadSettings) -> Result<Generator> {
        // What is beside first: what is missing is said before the larger file is read.
        let tower = self.needed(&self.tower, "vision_tower")?;
        let projector = self.needed(&self.projector, "mm_projector")?;
        let parts = Parts {
            encoder: false,
            decoder: true,
            depth: true,
        };
        let widths = Widths {
            codeword: tower.config.embed_dim,
            hidden: self.config.hidden_size,
        };
        let stored = match projector.config {
            // Its file may be without tensors, or missing.
            ProjectorConfig::Identity => Weights::random(0, Storage::F32),
            _ => projector.weights(weights, Quantization::None)?,
        };
        let projector = Projector::load(projector.config, widths, &stored)?;
        // The depth transformer is rounded with the language model.
        let of_tower = tower.weights(weights, settings.quantization)?;
        let tower = Tower::load(&tower.config, &of_tower, parts)?;
        Generator::new(self.language(weights, settings)?, tower, projector)
    }

    fn language(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<LanguageModel> {
        LanguageModel::load(&self.config, &self.weights(weights, settings)?.build()?)
    }
}

impl ComponentConfig for Configuration {
    fn description(&self) -> String {
        ComponentConfig::description(&self.config)
    }

    fn facts(&self) -> Map<String, Value> {
        ComponentConfig::facts(&self.config)
    }

    fn parameters(&self) -> u64 {
        self.config.parameters()
    }

    fn attach(&mut self, neighbour: &Neighbour) -> Result<()> {
        if neighbour.folder == "mm_projector" {
            let config = ProjectorConfig::from_json(neighbour.config, neighbour.label)?;
            self.projector = Some(Beside::new(config, neighbour));
            return Ok(());
        }
        let config = TowerConfig::from_json(neighbour.config, neighbour.label)?;
        let (found, expected) = (config.head.hidden_width, self.config.hidden_size);
        if found != expected {
            return Err(Error::Config(format!(
                "{}: `rqtransformer.input_embed_dim_2` is {found}, but `hidden_size` of {} is {expected}; the \
                 language model and the vision tower do not belong together",
                neighbour.label, self.label
            )));
        }
        self.tower = Some(Beside::new(config, neighbour));
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
        LanguageModel::load(&self.config, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        let tower = self.tower.as_ref().map(|tower| &tower.config);
        let size = match word {
            "V" => self.config.vocab_size,
            "H" => self.config.hidden_size,
            "codewords" => tower?.n_embed,
            "C" => tower?.embed_dim,
            "D" => tower?.depth,
            "h" | "w" => tower?.grid,
            "places" => tower?.places(),
            _ => return None,
        };
        Some(Dimension::Exactly(size))
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry.sizes.iter().map(|size| size.with(0, 1)).collect()
    }

    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        if entry.name == LANGUAGE.name {
            made.text(sizes.or_zero("context"), self.config.vocab_size)?;
            return Ok(made.take());
        }
        made.constant(MASK.name, &[2, PROMPT], 1.0)?;
        made.constant(GUIDANCE.name, &[1], 3.0)?;
        let ids = (0..2 * PROMPT).map(|at| ((at * 7919 + 11) % self.config.vocab_size) as u32);
        let mut inputs = made.take();
        inputs.insert_ids(IDS.name, &[2, PROMPT], ids.collect())?;
        Ok(inputs)
    }

    fn work(&self, entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let given = match inputs.get(IDS.name) {
            Some(ids) => ids,
            None => inputs.required(EMBEDS.name)?,
        };
        let (rows, tokens) = (given.dim(0)?, given.dim(1)?);
        let sizes = vec![("batch", rows), ("tokens", tokens)];
        if entry.name == LANGUAGE.name {
            let costs = self.config.pass_cost(tokens, tokens, tokens);
            return Ok(Work::of_batch(rows, sizes, &costs));
        }
        let tower = &self.needed(&self.tower, "vision_tower")?.config;
        let places = tower.places();
        let mut all = self.config.pass_cost(tokens, tokens, 0);
        let later = (places as u64).saturating_sub(1);
        // Keys grow by one a place: counted is their mean.
        for (part, step) in all
            .iter_mut()
            .zip(self.config.pass_cost(1, tokens + places / 2, 0))
        {
            part.add(&step.repeated(later));
        }
        all.retain(|part| part.flops > 0);
        let depth = tower.head.cost(1, true);
        all.push(Cost::sum("depth", &depth).repeated(places as u64));
        all.push(Cost::sum("decode", &tower.decode_cost()));
        Ok(Work::of_batch(rows, sizes, &all))
    }

    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        Ok(if entry.name == LANGUAGE.name {
            Box::new(Reads(self.language(weights, settings)?))
        } else {
            Box::new(Draws(self.generator(weights, settings)?))
        })
    }
}
