//! The text encoder from outside.

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder};
use serde_json::{Map, Value, json};

use super::{Prefix, Qwen2Encoder};
use crate::component::text_encoder::{self, TEXT_ENCODER, Texts};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, PrepareResult, Prepared, Recognised, Runnable, Size, Sizes, Work, not_run,
};
use crate::language_model::{self, LanguageModelConfig};
use crate::{Cost, Result};

/// Qwen2 without its head.
pub static COMPONENT: Component = Component {
    name: "Qwen2 text encoder",
    classes: &[
        "Qwen2Model",
        "Qwen2ForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "qwen2",
        "qwen2_vl",
    ],
    keys: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "image_token_id",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "use_sliding_window",
        "video_token_id",
        "vision_config",
        "vision_end_token_id",
        "vision_start_token_id",
        "vision_token_id",
        "vocab_size",
    ],
    folders: &["text_encoder"],
    beside: &[],
    entries: &[TEXT_ENCODER],
    // Language models of the same graph have the same names.
    recognise: |_, _| Ok(None),
    open: |bytes, label| Ok(Box::new(Qwen2Config::from_json(bytes, label)?)),
};

/// The settings of a [`Qwen2Encoder`] in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Config(pub LanguageModelConfig);

impl Qwen2Config {
    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// As [`LanguageModelConfig::qwen2_from_json`].
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        LanguageModelConfig::qwen2_from_json(bytes, label).map(Self)
    }

    /// Number of parameters; the head is not loaded.
    pub fn parameters_without_head(&self) -> u64 {
        let tied = LanguageModelConfig {
            tied: true,
            ..self.0.clone()
        };
        tied.parameters()
    }

    /// Parts of encoding `tokens` tokens behind `before` cached ones: `qkv`, `attention`, `mlp`.
    pub fn encode_cost(&self, tokens: usize, before: usize) -> Vec<Cost> {
        let mut parts = self.0.pass_cost(tokens, before + tokens.div_ceil(2), 0);
        parts.pop();
        parts
    }
}

impl ComponentConfig for Qwen2Config {
    fn description(&self) -> String {
        format!(
            "width {}, {} layers, vocabulary {}",
            self.0.hidden_size, self.0.num_layers, self.0.vocab_size
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let config = &self.0;
        let facts = json!({
            "width": config.hidden_size, "layers": config.num_layers,
            "vocabulary": config.vocab_size, "context": config.context, "heads": config.num_heads,
            "key_value_heads": config.num_key_value_heads,
            "parameters_of_embedding": config.vocab_size as u64 * config.hidden_size as u64,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters_without_head()
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights.plain().quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Qwen2Encoder::load(&self.0, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "vocabulary" => Dimension::Exactly(self.0.vocab_size),
            "D" => Dimension::Exactly(self.0.hidden_size),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        text_encoder::example_sizes(entry)
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        text_encoder::example_text(sizes, self.0.vocab_size, made)
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, sizes: &Sizes) -> Result<Work> {
        text_encoder::work(inputs, sizes, |tokens, before| {
            self.encode_cost(tokens, before)
        })
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(Qwen2Encoder::load(&self.0, &weights)?))
    }
}

impl Runnable for Qwen2Encoder {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let texts = Texts::read(inputs, sizes)?;
        let kept = match texts.prefix {
            0 => None,
            length => {
                let more = texts.shape[1] - length;
                Some(self.prefix(&texts.ids[..length], more)?)
            }
        };
        Ok(Box::new(Text {
            model: self,
            texts,
            kept,
            result: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        language_model::part(traced)
    }
}

struct Text<'a> {
    model: &'a Qwen2Encoder,
    texts: Texts,
    kept: Option<Prefix>,
    result: Option<Tensor>,
}

impl Prepared for Text<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let ([batch, tokens], prefix) = (self.texts.shape, self.texts.prefix);
        let rows = self.texts.ids.chunks(tokens.max(1)).zip(&self.texts.mask);
        let rows: Vec<(&[u32], &[bool])> = rows
            .map(|(ids, seen)| (&ids[prefix..], &seen[prefix..]))
            .collect();
        let state = match &mut self.kept {
            Some(kept) => self.model.encode_behind(kept, rows[0], trace)?,
            None => self.model.encode(&rows, trace)?,
        };
        let width = self.model.config().hidden_size;
        self.result = Some(state.reshape((batch, tokens - prefix, width))?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.texts
            .outputs(self.result.as_ref().ok_or_else(not_run)?)
    }
}
