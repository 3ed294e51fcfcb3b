//! A network as it looks from outside: how it is recognised, what its configuration says, which named
//! tensors it takes and gives, what it costs, how it is loaded and run.
//!
//! Each network's folder has a `component.rs` with a static [`Component`], listed in
//! [`registry`](crate::registry::COMPONENTS). Whoever probes, times, inspects or identifies networks
//! goes through these types and knows none by name.
//!
//! Names, layouts and types of tensors are those of the reference's forward: channels first, floats in
//! f32, ids and masks checked. [`Entry`] lists them, [`read_inputs`] holds a file to the list.

mod example;
mod keys;
mod pass;
mod ports;
mod sizes;
mod tensors;
pub(crate) mod text_encoder;
mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{
    Activations, Location, NamedShape, Quantization, Storage, Trace, Weights, WeightsBuilder,
};
use brisk_store::TensorSource;
use serde_json::{Map, Value};

use crate::cost::Cost;
use crate::{Error, Result};

pub use example::Examples;
pub(crate) use pass::pass;
pub use ports::{Dimension, Kind, Port, read_inputs};
pub use sizes::{Size, SizeError, SizeName, Sizes};
pub use tensors::NamedTensors;
pub(crate) use tensors::{floats, ids};
pub use weights::{ComponentWeights, RandomWeights};

/// One network.
pub struct Component {
    /// What it is, in words: `SANA transformer`.
    pub name: &'static str,
    /// Values of `_class_name`, `architectures` and `model_type` by which configurations name it.
    pub classes: &'static [&'static str],
    /// Keys of its configuration that are read, or known to change nothing.
    pub keys: &'static [&'static str],
    /// Names of its folder inside a pipeline's.
    pub folders: &'static [&'static str],
    /// Folders beside its own whose networks [it goes by](ComponentConfig::attach).
    pub beside: &'static [&'static str],
    /// The ways to run it.
    pub entries: &'static [Entry],
    /// Looks whether a weights file holds this network.
    pub recognise: Recognise,
    /// Reads and checks a `config.json`.
    pub open: Open,
}

/// What a weights file is, if it holds a network: a look at names, shapes and the file's own table of
/// texts. A file that is one of the network's layouts and contradicts itself is an error.
pub type Recognise = fn(&dyn TensorSource, &BTreeMap<String, String>) -> Result<Option<Recognised>>;

/// Reads and checks a `config.json`; the text names the file in messages. What cannot be honoured is an
/// error by its key.
pub type Open = fn(&[u8], &str) -> Result<Box<dyn ComponentConfig>>;

impl Component {
    /// The way to run it of this name.
    pub fn entry(&self, name: &str) -> Option<&'static Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// A way to run a component.
#[derive(Debug)]
pub struct Entry {
    /// As `brisk probe` and `brisk bench` call it: `transformer`, `vae.decode`.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it takes.
    pub inputs: &'static [Port],
    /// What it gives.
    pub outputs: &'static [Port],
    /// Numbers that decide made-up inputs and what is measured.
    pub sizes: &'static [SizeName],
    /// What of [`LoadSettings`] and [`RandomWeights`] it honours.
    pub settings: &'static [Setting],
}

impl Entry {
    /// Whether it honours a setting.
    pub fn honours(&self, setting: Setting) -> bool {
        self.settings.contains(&setting)
    }
}

/// What an entry may honour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// [`LoadSettings::exact`].
    Exact,
    /// [`LoadSettings::strip_rows`].
    StripRows,
    /// [`LoadSettings::quantization`].
    Quantization,
    /// [`LoadSettings::activations`], with a file that has 4-bit layers.
    Activations,
    /// [`LoadSettings::location`] on a card.
    Device,
    /// [`RandomWeights::low_bit`].
    RandomLowBit,
}

/// A weights file that holds a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognised {
    /// What it is, in words, with its layout.
    pub name: String,
    /// More about it.
    pub details: Map<String, Value>,
    /// Whether it is loaded without a `config.json` beside it.
    pub stands_alone: bool,
}

impl Recognised {
    /// Without details.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            details: Map::new(),
            stands_alone: false,
        }
    }

    /// With the details that a JSON object holds.
    pub fn with(name: impl Into<String>, details: Value) -> Self {
        Self {
            name: name.into(),
            details: match details {
                Value::Object(details) => details,
                _ => Map::new(),
            },
            stands_alone: false,
        }
    }

    /// The same for a file that says all that loading needs.
    pub fn standing_alone(self) -> Self {
        Self {
            stands_alone: true,
            ..self
        }
    }
}

/// A configuration that was read and checked.
///
/// Methods that take an [`Entry`] expect one of the component's own.
pub trait ComponentConfig: Send + Sync {
    /// What it says, in a line.
    fn description(&self) -> String;

    /// The same by name, for programs.
    fn facts(&self) -> Map<String, Value>;

    /// Number of parameters.
    fn parameters(&self) -> u64;

    /// Parameters that an entry loads.
    fn entry_parameters(&self, _entry: &Entry) -> u64 {
        self.parameters()
    }

    /// Folders inside its own that its values name, where configurations stand that [it goes by](Self::attach).
    fn inside(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes note of what stands in one of the folders beside its own ([`Component::beside`]) or
    /// [inside it](Self::inside).
    ///
    /// # Errors
    /// A configuration that is not read, or that does not go with this one; keys and both values are named.
    fn attach(&mut self, _neighbour: &Neighbour) -> Result<()> {
        Ok(())
    }

    /// What others of the same pipeline go by, such as an autoencoder's `pixels_per_cell`.
    fn shared(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// The tensors of a file under the network's own names, whichever of its plain layouts the file has.
    ///
    /// # Errors
    /// A file in a known layout that contradicts itself.
    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        Ok(source)
    }

    /// Named parameters of stored or made-up weights, whatever layout the file has.
    ///
    /// # Errors
    /// A file of another model, or one that contradicts itself.
    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder>;

    /// Builds the whole network and drops it.
    ///
    /// # Errors
    /// What loading reports.
    fn build(&self, weights: &Weights) -> Result<()>;

    /// Names and shapes of the plain layout's tensors.
    ///
    /// # Errors
    /// As [`Self::build`].
    fn expected_tensors(&self) -> Result<Vec<NamedShape>> {
        let weights = WeightsBuilder::random(0, Storage::F32)
            .headers_only()
            .build()?;
        self.build(&weights)?;
        Ok(weights.asked())
    }

    /// Says what loading these weights will say of names and shapes, from headers alone.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or of another shape, in one report.
    fn check(&self, source: Arc<dyn TensorSource>) -> Result<()> {
        let stored = ComponentWeights::Stored(source);
        let weights = self.weights(&stored, &LoadSettings::default())?;
        self.build(&weights.headers_only().build()?)
    }

    /// What the entry takes of this configuration: some ports are required or absent by it.
    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        entry.inputs.to_vec()
    }

    /// What a word of the ports' shapes is by this configuration, where that is known.
    fn dimension(&self, word: &str) -> Option<Dimension>;

    /// The entry's sizes with their defaults; `beside` is what the pipeline's other components
    /// [share](Self::shared).
    fn sizes(&self, entry: &Entry, beside: &Sizes) -> Vec<Size>;

    /// Inputs of these sizes, the same in every run; `beside` as in [`Self::sizes`].
    ///
    /// # Errors
    /// Sizes that overflow.
    fn example_inputs(
        &self,
        entry: &Entry,
        sizes: &Sizes,
        beside: &Sizes,
        examples: &mut Examples,
    ) -> Result<NamedTensors>;

    /// What one run on these inputs computes and moves.
    ///
    /// # Errors
    /// Inputs that the entry does not take.
    fn work(&self, entry: &Entry, inputs: &NamedTensors, sizes: &Sizes) -> Result<Work>;

    /// Loads what the entry needs.
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    fn load(
        &self,
        entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>>;
}

/// What stands in a folder beside a component's, or inside it.
pub struct Neighbour<'a> {
    /// The folder's name.
    pub folder: &'a str,
    /// Its `config.json`.
    pub config: &'a [u8],
    /// Name of that file in messages.
    pub label: &'a str,
    /// Opens its weights.
    pub weights: &'a dyn Fn() -> brisk_store::Result<Arc<dyn TensorSource>>,
}

/// How a component is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadSettings {
    /// Convolve tap by tap: slower, closer in the last bits.
    pub exact: bool,
    /// How inputs of 4-bit layers are rounded; none: 8 bits.
    pub activations: Option<Activations>,
    /// How linear layers quantize their weights while they are loaded.
    pub quantization: Quantization,
    /// Work in strips of so many pixel rows.
    pub strip_rows: Option<usize>,
    /// Where to compute.
    pub location: Location,
}

/// What a run costs.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Sizes by name, for a report.
    pub sizes: Vec<(&'static str, usize)>,
    /// The parts of a run; their names are those of [`Runnable::part`].
    pub costs: Vec<Cost>,
    /// What [`Runnable::prepare`] computes, where it is worth timing.
    pub preparation: Option<Cost>,
    /// Bytes of a weight while it is computed with, where they are not those it is stored in.
    pub weight_bytes: Option<f64>,
}

impl Work {
    /// Of `batch` times what `costs` say, computed with the weights as they are stored.
    pub fn of_batch(batch: usize, sizes: Vec<(&'static str, usize)>, costs: &[Cost]) -> Self {
        Self {
            sizes,
            costs: costs.iter().map(|cost| cost.for_batch(batch)).collect(),
            ..Self::default()
        }
    }

    /// The same by convolutions: they compute on f32 copies, whatever the file holds.
    pub fn by_convolutions(self) -> Self {
        Self {
            weight_bytes: Some(4.0),
            ..self
        }
    }
}

/// A component with its inputs, or why it does not take them.
pub type PrepareResult<'a> = std::result::Result<Box<dyn Prepared + 'a>, PrepareError>;

/// A loaded component.
pub trait Runnable {
    /// Takes inputs that [`read_inputs`] gave and computes what all runs on them share: an encoded
    /// caption, a kept prefix.
    ///
    /// # Errors
    /// Inputs that do not fit the sizes or each other, or a non-finite activation.
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a>;

    /// The part that a value of this name ends: the name itself where parts are what is shown.
    fn part<'a>(&self, traced: &'a str) -> &'a str {
        traced
    }
}

impl dyn Runnable + '_ {
    /// One run on inputs that [`read_inputs`] gave.
    ///
    /// # Errors
    /// As [`Runnable::prepare`] and [`Prepared::run`].
    pub fn run(&self, inputs: &NamedTensors) -> Result<NamedTensors> {
        let mut prepared =
            self.prepare(inputs, &Sizes::default())
                .map_err(|error| match error {
                    PrepareError::Size(size) => Error::Shape(size.to_string()),
                    PrepareError::Failed(error) => error,
                })?;
        prepared.run(&mut Trace::none())?;
        prepared.outputs()
    }
}

/// A component with its inputs.
pub trait Prepared {
    /// Computes once and keeps the result. Values are shown under the names that [`Runnable::part`] knows.
    ///
    /// # Errors
    /// A non-finite activation.
    fn run(&mut self, trace: &mut Trace) -> Result<()>;

    /// What the last run gave, under the names of the entry's outputs.
    ///
    /// # Errors
    /// Nothing was run.
    fn outputs(&self) -> Result<NamedTensors>;
}

/// Why inputs cannot be run on.
#[derive(Debug)]
pub enum PrepareError {
    /// A size that does not fit them.
    Size(SizeError),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for PrepareError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<SizeError> for PrepareError {
    fn from(error: SizeError) -> Self {
        Self::Size(error)
    }
}

/// The error of outputs that nothing computed.
pub(crate) fn not_run() -> Error {
    Error::Config("nothing was run on these inputs yet".into())
}
