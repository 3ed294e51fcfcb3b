//! The text encoder from outside.

use std::collections::BTreeMap;

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::{Llava, LlavaConfig};
use crate::component::text_encoder::{IDS, MASK, STATE, TEXT_ENCODER, TOKENS, Texts};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, Sizes, Work, pass,
};
use crate::language_model;
use crate::{Error, Result};

/// LLaVA, or a Llama body, as a text encoder.
pub static COMPONENT: Component = Component {
    name: "LLaVA text encoder",
    classes: &LlavaConfig::CLASSES,
    keys: LlavaConfig::KEYS,
    folders: &["text_encoder"],
    beside: &[],
    entries: &[ENCODE],
    recognise,
    open: |bytes, label| Ok(Box::new(LlavaConfig::from_json(bytes, label)?)),
};

/// Normalised pictures, in the order of the texts' image tokens.
const PIXELS: Port =
    Port::float("pixel_values", &["pictures", "colours", "side", "side"]).optional();
/// Last layers that are left out, with the final norm.
const SKIPPED: Port = Port::scalar("skip_layers").optional();

const ENCODE: Entry = Entry {
    inputs: &[IDS, MASK, PIXELS, SKIPPED],
    outputs: &[STATE],
    sizes: &[TOKENS],
    settings: &[Setting::Quantization],
    ..TEXT_ENCODER
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let ours = ["", "model."].iter().any(|prefix| {
        let has = |name: &str| source.info(&format!("{prefix}{name}")).is_some();
        has("multi_modal_projector.linear_1.weight")
    });
    Ok(ours.then(|| Recognised::new(COMPONENT.name)))
}

impl ComponentConfig for LlavaConfig {
    fn description(&self) -> String {
        let pictures = self.vision.as_ref().map(|vision| {
            format!(
                ", pictures of {} px as {} tokens",
                vision.encoder.image_size,
                vision.tokens()
            )
        });
        format!(
            "width {}, {} layers, vocabulary {}{}",
            self.text.hidden_size,
            self.text.num_layers,
            self.text.vocab_size,
            pictures.unwrap_or_default()
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let text = &self.text;
        let facts = json!({
            "width": text.hidden_size, "layers": text.num_layers, "vocabulary": text.vocab_size,
            "context": text.context, "heads": text.num_heads, "key_value_heads": text.num_key_value_heads,
            "picture_tokens": self.vision.as_ref().map(|vision| vision.tokens()),
            "picture_pixels": self.vision.as_ref().map(|vision| vision.encoder.image_size),
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
        Llava::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        let kept = |port: &&Port| port.name != PIXELS.name || self.vision.is_some();
        entry.inputs.iter().filter(kept).copied().collect()
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        let vision = self.vision.as_ref().map(|vision| &vision.encoder);
        Some(match word {
            "vocabulary" => Dimension::Exactly(self.text.vocab_size),
            "D" => Dimension::Exactly(self.text.hidden_size),
            "colours" => Dimension::Exactly(vision?.num_channels),
            "side" => Dimension::Exactly(vision?.image_size),
            _ => return None,
        })
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry.sizes.iter().map(|size| size.with(1, 1)).collect()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        made.text(sizes.or_zero(TOKENS.name), self.text.vocab_size)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let ([batch, tokens], _) = inputs.ids(IDS.name)?;
        let pictures = inputs.get(PIXELS.name).map(|pixels| pixels.dim(0));
        let mut costs = self.encode_cost(tokens, 0);
        costs
            .iter_mut()
            .for_each(|cost| *cost = cost.for_batch(batch));
        if let (Some(vision), Some(pictures)) = (&self.vision, pictures) {
            let pictures = pictures?;
            let seen = vision.cost(self.text.hidden_size).into_iter();
            costs.extend(seen.map(|cost| cost.for_batch(pictures)));
        }
        let sizes = vec![("batch", batch), ("tokens", tokens)];
        Ok(Work {
            sizes,
            costs,
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
        Ok(Box::new(Llava::load(self, &weights)?))
    }
}

impl Runnable for Llava {
    /// Texts one after the other, each without the padding behind it.
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let texts = Texts::read(inputs, sizes)?;
        let skipped = inputs.scalar(SKIPPED.name)?.unwrap_or(0.0);
        let layers = self.config().text.num_layers;
        if skipped.fract() != 0.0 || !(0.0..=layers as f32).contains(&skipped) {
            return Err(Error::Shape(format!(
                "\"{}\" is {skipped}; expected 0 to {layers}",
                SKIPPED.name
            ))
            .into());
        }
        let mut lengths = Vec::with_capacity(texts.mask.len());
        for (row, mask) in texts.mask.iter().enumerate() {
            let length = mask.iter().take_while(|keep| **keep).count();
            if length == 0 || mask[length..].contains(&true) {
                return Err(Error::Shape(format!(
                    "row {row} of \"{}\" hides tokens in front of others; expected padding behind the text alone",
                    MASK.name
                ))
                .into());
            }
            lengths.push(length);
        }
        let pictures = match inputs.get(PIXELS.name) {
            Some(pixels) => Some(ops::to_nhwc(pixels)?),
            None => None,
        };
        let [_, tokens] = texts.shape;
        let ids = texts.ids.clone();
        let run = move |trace: &mut Trace| {
            let rows = match &pictures {
                Some(pictures) => {
                    let found = self.picture_tokens(pictures, trace)?;
                    let (pictures, tokens, width) = found.dims3()?;
                    Some(found.reshape((pictures * tokens, width))?)
                }
                None => None,
            };
            let token = self
                .config()
                .vision
                .as_ref()
                .map(|vision| vision.image_token);
            let mut used = 0;
            let mut states = Vec::with_capacity(lengths.len());
            for (ids, length) in ids.chunks_exact(tokens).zip(&lengths) {
                let ids = &ids[..*length];
                let own = ids.iter().filter(|id| Some(**id) == token).count();
                let picture = match &rows {
                    Some(rows) if used + own <= rows.dim(0)? => Some(rows.narrow(0, used, own)?),
                    Some(rows) => {
                        return Err(Error::Shape(format!(
                            "more image tokens in the texts than the {} of the pictures",
                            rows.dim(0)?
                        )));
                    }
                    None => None,
                };
                used += own;
                let picture = picture.filter(|_| own > 0);
                let own = self.states(ids, picture.as_ref(), skipped as usize, trace)?;
                states.push(own.pad_with_zeros(0, 0, tokens - length)?.unsqueeze(0)?);
            }
            if rows.is_some_and(|rows| rows.dim(0).is_ok_and(|all| all != used)) {
                return Err(Error::Shape(format!(
                    "{used} image tokens in the texts, fewer than the pictures have"
                )));
            }
            Tensor::cat(&states, 0)
        };
        Ok(pass(run, move |states| texts.outputs(states)))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        match traced {
            "vision_tower" | "multi_modal_projector" => traced,
            inner if inner.starts_with("vision_tower.") => "vision_tower",
            inner => language_model::part(inner),
        }
    }
}
