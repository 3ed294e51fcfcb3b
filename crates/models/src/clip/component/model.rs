//! Both encoders from outside.

use std::collections::BTreeMap;

use brisk_nn::{Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use crate::clip::model::{ClipModel, ClipModelConfig, Similarity};
use crate::component::text_encoder::{IDS, MASK, TOKENS, Texts, sizes_up_to};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, Sizes, Work, pass,
};
use crate::{Cost, Result};

/// CLIP: how much a picture and a text have to do with each other.
pub static MODEL: Component = Component {
    name: "CLIP",
    classes: &ClipModelConfig::CLASSES,
    keys: ClipModelConfig::KEYS,
    folders: &["clip"],
    beside: &[],
    entries: &[SIMILARITY],
    recognise,
    open: |bytes, label| Ok(Box::new(ClipModelConfig::from_json(bytes, label)?)),
};

/// Normalised pictures.
const PIXELS: Port = Port::float("pixel_values", &["pictures", "colours", "side", "side"]);
const TEXTS: Port = Port::float("text_embeds", &["B", "E"]);
const PICTURES: Port = Port::float("image_embeds", &["pictures", "E"]);
const LOGITS: Port = Port::float("logits_per_image", &["pictures", "B"]);

const SIMILARITY: Entry = Entry {
    name: "similarity",
    about: "Compare pictures with texts",
    inputs: &[IDS, MASK, PIXELS],
    outputs: &[TEXTS, PICTURES, LOGITS],
    sizes: &[TOKENS],
    settings: &[Setting::Quantization],
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let ours = [
        "text_model.embeddings.token_embedding.weight",
        "vision_model.embeddings.class_embedding",
        "visual_projection.weight",
    ];
    let all = ours.iter().all(|name| source.info(name).is_some());
    Ok(all.then(|| Recognised::new(MODEL.name)))
}

impl ComponentConfig for ClipModelConfig {
    fn description(&self) -> String {
        format!(
            "pictures of {} px in patches of {}, texts of up to {} tokens, compared by {} numbers",
            self.vision.image_size,
            self.vision.patch_size,
            self.text.max_position_embeddings,
            self.projection_dim
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "picture_pixels": self.vision.image_size, "patch": self.vision.patch_size,
            "vision_width": self.vision.hidden_size, "vision_layers": self.vision.num_hidden_layers,
            "text_width": self.text.hidden_size, "text_layers": self.text.num_hidden_layers,
            "vocabulary": self.text.vocab_size, "context": self.text.max_position_embeddings,
            "embedding": self.projection_dim,
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
        ClipModel::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        Some(Dimension::Exactly(match word {
            "vocabulary" => self.text.vocab_size,
            "colours" => self.vision.num_channels,
            "side" => self.vision.image_size,
            "E" => self.projection_dim,
            _ => return None,
        }))
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        sizes_up_to(entry, self.text.max_position_embeddings)
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        made.text(sizes.or_zero(TOKENS.name), self.text.vocab_size)?;
        let side = self.vision.image_size;
        let shape = [1, self.vision.num_channels, side, side];
        made.normal(PIXELS.name, &shape, 1.0, false)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let ([batch, tokens], _) = inputs.ids(IDS.name)?;
        let pictures = inputs.required(PIXELS.name)?.dim(0)?;
        let to = self.projection_dim as u64;
        let mut texts = Cost::new("text_model");
        texts.add(&self.text.cost(tokens));
        texts.linear(1, self.text.hidden_size as u64, to);
        let mut seen = Cost::new("vision_model");
        seen.add(&self.vision.cost(self.vision.num_hidden_layers));
        seen.linear(1, self.vision.hidden_size as u64, to);
        Ok(Work {
            sizes: vec![("batch", batch), ("tokens", tokens), ("pictures", pictures)],
            costs: vec![texts.for_batch(batch), seen.for_batch(pictures)],
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
        Ok(Box::new(ClipModel::load(self, &weights)?))
    }
}

impl Runnable for ClipModel {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let Texts {
            ids, mask, shape, ..
        } = Texts::read(inputs, sizes)?;
        let masked = mask.iter().flatten().any(|keep| !keep);
        let mask = masked.then_some(mask);
        let pixels = ops::to_nhwc(inputs.required(PIXELS.name)?)?;
        Ok(pass(
            move |trace: &mut Trace| {
                let texts = self.embed_texts(&ids, shape[1], mask.clone(), trace)?;
                let pictures = self.embed_pictures(&pixels, trace)?;
                self.compare(texts, pictures)
            },
            |found: &Similarity| {
                let mut outputs = NamedTensors::default();
                outputs.insert(TEXTS.name, found.texts.clone());
                outputs.insert(PICTURES.name, found.pictures.clone());
                outputs.insert(LOGITS.name, found.logits.clone());
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
