//! The network from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::model::MULTIPLE;
use super::names::{OWN, plain_names, prefix};
use super::{Craft, CraftConfig};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Recognised, Runnable, Setting, Size, SizeName, Sizes, Work,
    pass,
};

/// CRAFT.
pub static COMPONENT: Component = Component {
    name: "CRAFT",
    classes: &CraftConfig::CLASSES,
    keys: &CraftConfig::KEYS,
    folders: &["detector"],
    beside: &[],
    entries: &[DETECTOR],
    recognise,
    open: |bytes, label| Ok(Box::new(CraftConfig::from_json(bytes, label)?)),
};

const PIXELS: Port = Port::float("pixel_values", &["B", "3", "H", "W"]);
const REGION: Port = Port::float("region", &["B", "h", "w"]);
const AFFINITY: Port = Port::float("affinity", &["B", "h", "w"]);

const DETECTOR: Entry = Entry {
    name: "detector",
    about: "Find the characters of a picture",
    inputs: &[PIXELS],
    outputs: &[REGION, AFFINITY],
    sizes: &[SIDE],
    settings: &[Setting::Exact],
};

const SIDE: SizeName = SizeName {
    name: "size",
    unit: "PIXELS",
    about: "Side of the picture (default: 256)",
    usual: Some(256),
    smallest: 16,
    largest: 4096,
    of_inputs: true,
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let prefix = prefix(source);
    let Some((_, shape)) = source.info(&format!("{prefix}{OWN}")) else {
        return Ok(None);
    };
    let details = json!({"deep_channels": shape.first()});
    Ok(Some(Recognised::with("CRAFT", details)))
}

impl ComponentConfig for CraftConfig {
    fn description(&self) -> String {
        format!("VGG16 of {:?} channels", self.stage_channels)
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "stage_channels": self.stage_channels, "deep_channels": self.deep_channels,
            "join_channels": self.join_channels, "pixels_per_cell": 2,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.cost(0, 0).iter().map(|part| part.parameters).sum()
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
        Craft::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        matches!(word, "H" | "W").then_some(Dimension::MultipleOf(MULTIPLE))
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry
            .sizes
            .iter()
            .map(|size| size.with(MULTIPLE, 1))
            .collect()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let side = sizes.or_zero(SIDE.name);
        made.normal(PIXELS.name, &[1, 3, side, side], 1.0, false)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let (pictures, _, height, width) = inputs.required(PIXELS.name)?.dims4()?;
        let sizes = vec![("batch", pictures), ("height", height), ("width", width)];
        Ok(Work::of_batch(pictures, sizes, &self.cost(height, width)).by_convolutions())
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(Craft::load(self, &weights)?))
    }
}

impl Runnable for Craft {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let pictures = ops::to_nhwc(inputs.required(PIXELS.name)?)?;
        Ok(pass(
            move |trace| self.forward(&pictures, trace),
            |scores| {
                let map = |index: usize| scores.maps.narrow(3, index, 1)?.squeeze(3)?.contiguous();
                let mut outputs = NamedTensors::default();
                outputs.insert(REGION.name, map(0)?);
                outputs.insert(AFFINITY.name, map(1)?);
                Ok(outputs)
            },
        ))
    }
}
