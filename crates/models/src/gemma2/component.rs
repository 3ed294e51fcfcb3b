//! The text encoder from outside.

use std::collections::BTreeMap;

use brisk_nn::{Location, Tensor, Trace, Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::{Gemma2Config, Gemma2Model, Prefix};
use crate::Result;
use crate::component::text_encoder::{self, TEXT_ENCODER, Texts};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, PrepareResult, Prepared, Recognised, Runnable, Setting, Size, Sizes, Work, ids,
    not_run,
};
use crate::low_bit::{self, weight_only_parameters};

/// Gemma 2 without its language-model head.
pub static COMPONENT: Component = Component {
    name: "Gemma-2 text encoder",
    classes: &["Gemma2Model", "Gemma2ForCausalLM", "gemma2"],
    keys: &[
        "attention_bias",
        "attn_logit_softcapping",
        "cache_implementation",
        "final_logit_softcapping",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "use_bidirectional_attention",
        "vocab_size",
    ],
    folders: &["text_encoder"],
    beside: &[],
    entries: &[Entry {
        settings: &[Setting::Device],
        ..TEXT_ENCODER
    }],
    recognise,
    open: |bytes, label| Ok(Box::new(Gemma2Config::from_json(bytes, label)?)),
};

fn recognise(
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    const TELLING: &str = "layers.0.pre_feedforward_layernorm.weight";
    let has = |name: &str| source.info(name).is_some();
    let name = match (has(TELLING), has(&format!("model.{TELLING}"))) {
        (false, false) => return Ok(None),
        (true, _) => "Gemma-2 text encoder",
        (false, true) => "Gemma-2 language model",
    };
    Ok(Some(match low_bit::is_quantized(source) {
        true => low_bit::describe(source, metadata, name),
        false => Recognised::new(name),
    }))
}

impl ComponentConfig for Gemma2Config {
    fn description(&self) -> String {
        format!(
            "width {}, {} layers, vocabulary {}",
            self.hidden_size, self.num_hidden_layers, self.vocab_size
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "width": self.hidden_size, "layers": self.num_hidden_layers,
            "vocabulary": self.vocab_size, "heads": self.num_attention_heads,
            "key_value_heads": self.num_key_value_heads, "sliding_window": self.sliding_window,
            "parameters_of_embedding": self.vocab_size as u64 * self.hidden_size as u64,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let found = match weights {
            ComponentWeights::Stored(source) => weight_only_parameters(source.clone())?,
            ComponentWeights::Random(_) => weights.plain(),
        };
        Ok(found
            .quantize(settings.quantization, None)
            .at(&settings.location))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Gemma2Model::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "vocabulary" => Dimension::Exactly(self.vocab_size),
            "D" => Dimension::Exactly(self.hidden_size),
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
        text_encoder::example_text(sizes, self.vocab_size, made)
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
        Ok(Box::new(Gemma2Model::load(self, &weights)?))
    }
}

impl Runnable for Gemma2Model {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let texts = Texts::read(inputs, sizes)?;
        let ([batch, tokens], prefix) = (texts.shape, texts.prefix);
        let kept = match prefix {
            0 => None,
            length => Some(self.prefix(&texts.ids[..length])?),
        };
        let mask = texts.mask.iter().flatten();
        let mask: Vec<u32> = mask.map(|keep| u32::from(*keep)).collect();
        let new = texts.ids[prefix * batch..].to_vec();
        Ok(Box::new(Text {
            model: self,
            kept,
            ids: ids(new, &[batch, tokens - prefix])?,
            mask: ids(mask, &[batch, tokens])?,
            texts,
            result: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

fn part(name: &str) -> &'static str {
    let inner = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, inner)| inner);
    match inner {
        "embed_tokens" => "embed_tokens",
        "self_attn" => "self_attn",
        "mlp" => "mlp",
        _ => "between",
    }
}

struct Text<'a> {
    model: &'a Gemma2Model,
    texts: Texts,
    kept: Option<Prefix>,
    /// Those after the prefix.
    ids: Tensor,
    mask: Tensor,
    result: Option<Tensor>,
}

impl Prepared for Text<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let result = match &self.kept {
            Some(kept) => self.model.forward_with_prefix(kept, &self.ids)?,
            None => self
                .model
                .forward_traced(&self.ids, Some(&self.mask), trace)?,
        };
        self.result = Some(result.to(&Location::HOST)?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.texts
            .outputs(self.result.as_ref().ok_or_else(not_run)?)
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn traced_names_fall_into_parts() {
        assert_eq!(part("layers.3.mlp"), "mlp");
        assert_eq!(part("layers.3"), "between");
    }
}
