//! The network from outside.

use std::collections::BTreeMap;

use brisk_nn::{Tensor, Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::{ToyConfig, ToyModel};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Prepared, Recognised, Runnable, Size, Sizes, Work, not_run,
};

/// The toy.
pub static COMPONENT: Component = Component {
    name: "toy velocity network",
    classes: &["ToyVelocityModel"],
    keys: &["words", "side"],
    folders: &["velocity_model"],
    beside: &[],
    entries: &[VELOCITY],
    recognise,
    open: |bytes, label| Ok(Box::new(ToyConfig::from_json(bytes, label)?)),
};

const HIDDEN: Port = Port::float("hidden_states", &["B", "3", "S", "S"]);
const TIMESTEP: Port = Port::float("timestep", &["B"]);
const WORDS: Port = Port::ids("words", &["B", "1"], "word");
const SAMPLE: Port = Port::float("sample", &["B", "3", "S", "S"]);

const VELOCITY: Entry = Entry {
    name: "velocity",
    about: "Evaluate a toy network once",
    inputs: &[HIDDEN, TIMESTEP, WORDS],
    outputs: &[SAMPLE],
    sizes: &[],
    settings: &[],
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let ours = ["pictures.weight", "spread"]
        .iter()
        .all(|name| source.info(name).is_some());
    Ok(ours.then(|| Recognised::new(COMPONENT.name)))
}

impl ComponentConfig for ToyConfig {
    fn description(&self) -> String {
        format!("{} words, pictures of {} px", self.words.len(), self.side)
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({"words": self.words, "side": self.side});
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        _settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights.plain())
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        ToyModel::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        match word {
            "S" => Some(Dimension::Exactly(self.side)),
            "word" => Some(Dimension::Exactly(self.words.len())),
            _ => None,
        }
    }

    fn sizes(&self, _entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        Vec::new()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        _sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        made.normal(HIDDEN.name, &[1, 3, self.side, self.side], 1.0, false)?;
        made.constant(TIMESTEP.name, &[1], 500.0)?;
        let mut tensors = made.take();
        tensors.insert_ids(WORDS.name, &[1, 1], vec![0])?;
        Ok(tensors)
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let ([batch, _], _) = inputs.ids(WORDS.name)?;
        Ok(Work {
            sizes: vec![("batch", batch), ("side", self.side)],
            costs: self.step_cost(batch),
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
        Ok(Box::new(ToyModel::load(self, &weights)?))
    }
}

impl Runnable for ToyModel {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let (_, words) = inputs.ids(WORDS.name)?;
        let times = inputs.required(TIMESTEP.name)?.to_vec1()?;
        Ok(Box::new(Pass {
            pictures: self.pictures(&words)?,
            times,
            hidden: ops::to_nhwc(inputs.required(HIDDEN.name)?)?,
            model: self,
            result: None,
        }))
    }
}

struct Pass<'a> {
    model: &'a ToyModel,
    /// NHWC, as the result.
    hidden: Tensor,
    times: Vec<f32>,
    pictures: Tensor,
    result: Option<Tensor>,
}

impl Prepared for Pass<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let velocity = self
            .model
            .forward(&self.hidden, &self.times, &self.pictures)?;
        trace.see("velocity", &velocity);
        self.result = Some(velocity);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let sample = ops::to_nchw(self.result.as_ref().ok_or_else(not_run)?)?;
        Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
    }
}
