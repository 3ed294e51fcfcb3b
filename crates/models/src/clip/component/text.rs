//! The text encoder from outside.

use std::collections::BTreeMap;

use brisk_nn::{Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::clip::{ClipText, ClipTextConfig, EncodedText};
use crate::component::text_encoder::{IDS, MASK, STATE, TEXT_ENCODER, TOKENS, Texts, sizes_up_to};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, Sizes, Work, pass,
};

/// CLIP's text encoder.
pub static COMPONENT: Component = Component {
    name: "CLIP text encoder",
    classes: &ClipTextConfig::CLASSES,
    keys: ClipTextConfig::KEYS,
    folders: &["text_encoder_2"],
    beside: &[],
    entries: &[ENCODE],
    recognise,
    open: |bytes, label| Ok(Box::new(ClipTextConfig::from_json(bytes, label)?)),
};

const POOLED: Port = Port::float("pooled", &["B", "D"]);

const ENCODE: Entry = Entry {
    inputs: &[IDS, MASK],
    outputs: &[STATE, POOLED],
    sizes: &[TOKENS],
    settings: &[Setting::Quantization],
    ..TEXT_ENCODER
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let ours = ["token_embedding.weight", "position_embedding.weight"];
    let has = |prefix: &str| {
        ours.iter()
            .all(|name| source.info(&format!("{prefix}embeddings.{name}")).is_some())
    };
    let both = source
        .info("vision_model.embeddings.class_embedding")
        .is_some();
    let found = (has("text_model.") || has("")) && !both;
    Ok(found.then(|| Recognised::new(COMPONENT.name)))
}

impl ComponentConfig for ClipTextConfig {
    fn description(&self) -> String {
        format!(
            "width {}, {} layers, vocabulary {}, texts of up to {} tokens",
            self.hidden_size, self.num_hidden_layers, self.vocab_size, self.max_position_embeddings
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "width": self.hidden_size, "layers": self.num_hidden_layers, "vocabulary": self.vocab_size,
            "context": self.max_position_embeddings, "heads": self.num_attention_heads,
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
        Ok(weights.plain().quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        ClipText::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(match word {
            "vocabulary" => Dimension::Exactly(self.vocab_size),
            "D" => Dimension::Exactly(self.hidden_size),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        sizes_up_to(entry, self.max_position_embeddings)
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        made.text(sizes.or_zero(TOKENS.name), self.vocab_size)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let ([batch, tokens], _) = inputs.ids(IDS.name)?;
        let costs = [self.cost(tokens)];
        let sizes = vec![("batch", batch), ("tokens", tokens)];
        Ok(Work::of_batch(batch, sizes, &costs))
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(ClipText::load(self, &weights)?))
    }
}

impl Runnable for ClipText {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let texts = Texts::read(inputs, sizes)?;
        let (ids, tokens) = (texts.ids.clone(), texts.shape[1]);
        let masked = texts.mask.iter().flatten().any(|keep| !keep);
        let mask = masked.then(|| texts.mask.clone());
        Ok(pass(
            move |trace| self.encode(&ids, tokens, mask.clone(), trace),
            move |found: &EncodedText| {
                let mut outputs = texts.outputs(&found.states)?;
                outputs.insert(POOLED.name, found.pooled.clone());
                Ok(outputs)
            },
        ))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        match traced.split_once('.') {
            Some((kind, _)) => kind,
            None => traced,
        }
    }
}
