//! The network from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::model::NARROWEST;
use super::names::{is_own, plain_names};
use super::{Crnn, CrnnConfig};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, SizeName, Sizes, Work,
    pass,
};

/// CRNN.
pub static COMPONENT: Component = Component {
    name: "CRNN",
    classes: &CrnnConfig::CLASSES,
    keys: &CrnnConfig::KEYS,
    folders: &["recogniser"],
    beside: &[],
    entries: &[RECOGNISER],
    recognise,
    open: |bytes, label| Ok(Box::new(CrnnConfig::from_json(bytes, label)?)),
};

const PIXELS: Port = Port::float("pixel_values", &["B", "1", "H", "W"]);
const LOGITS: Port = Port::float("logits", &["B", "T", "V"]);

const RECOGNISER: Entry = Entry {
    name: "recogniser",
    about: "Read a line of text",
    inputs: &[PIXELS],
    outputs: &[LOGITS],
    sizes: &[WIDTH],
    settings: &[Setting::Exact],
};

const WIDTH: SizeName = SizeName {
    name: "width",
    unit: "PIXELS",
    about: "Width of the line (default: 256)",
    usual: Some(256),
    smallest: NARROWEST,
    largest: 1 << 16,
    of_inputs: true,
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    Ok(is_own(source).then(|| Recognised::new("CRNN")))
}

impl ComponentConfig for CrnnConfig {
    fn description(&self) -> String {
        format!(
            "{} features, {} classes",
            self.output_channels,
            self.classes()
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "output_channels": self.output_channels, "hidden_size": self.hidden_size,
            "image_height": self.image_height, "classes": self.classes(),
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.cost(NARROWEST)
            .iter()
            .map(|part| part.parameters)
            .sum()
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
        Ok(found.exact(settings.exact))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        Crnn::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        match word {
            "H" => Some(Dimension::Exactly(self.image_height)),
            "V" => Some(Dimension::Exactly(self.classes())),
            _ => None,
        }
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
        let shape = [1, 1, self.image_height, sizes.or_zero(WIDTH.name)];
        made.normal(PIXELS.name, &shape, 1.0, false)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (lines, _, _, width) = inputs.required(PIXELS.name)?.dims4()?;
        let sizes = vec![("batch", lines), ("width", width)];
        Ok(Work::of_batch(lines, sizes, &self.cost(width)))
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(Crnn::load(self, &weights)?))
    }
}

impl Runnable for Crnn {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let lines = ops::to_nhwc(inputs.required(PIXELS.name)?)?;
        Ok(pass(
            move |trace| self.forward(&lines, trace),
            |logits| {
                Ok([(LOGITS.name.to_owned(), logits.clone())]
                    .into_iter()
                    .collect())
            },
        ))
    }
}
