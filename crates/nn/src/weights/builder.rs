//! Where a model's parameters come from and what is added to them, settled before any is read.

use super::headers::Headers;
use super::ledger::Ledger;
use super::made_up::Storage;
use super::variables::Variables;
use super::{Origin, Shared, Weights};
use crate::error::{Error, Result};
use crate::lora::{Adapters, Lora};
use crate::low_bit::LowBitSource;
use crate::quantized::{Quantization, QuantizedWeights};
use crate::tensor::{Location, Tensor};
use brisk_kernels::int4::Activations;
use brisk_store::TensorSource;
use std::sync::Arc;

/// Sees the input of every linear layer, by the layer's full name.
pub type InputWatcher = Arc<dyn Fn(&str, &Tensor) + Send + Sync>;

/// A source of parameters, and additions to it. Additions may come in any order and give the same
/// [`Weights`]; those that contradict each other or the source are an error of
/// [`WeightsBuilder::build`].
#[derive(Clone)]
#[must_use = "parameters are read from what `build` gives"]
pub struct WeightsBuilder {
    source: Source,
    loras: Vec<(Arc<Lora>, f32)>,
    low_bit: Vec<(Arc<dyn LowBitSource>, Activations)>,
    watchers: Vec<InputWatcher>,
    quantized: Vec<(Quantization, Option<Arc<QuantizedWeights>>)>,
    exact: bool,
    location: Location,
    headers_only: bool,
    trained: Vec<String>,
}

#[derive(Clone)]
enum Source {
    File(Arc<dyn TensorSource>),
    Random(u64, Storage),
    Variables(Option<Arc<dyn TensorSource>>, u64),
}

impl WeightsBuilder {
    /// Frozen parameters from a file.
    pub fn from_source(source: Arc<dyn TensorSource>) -> Self {
        Self::new(Source::File(source))
    }

    /// Frozen random parameters at whatever shapes layers ask for; seed and name decide the
    /// values. For timing: every parameter exists, so nothing is ever missing, and the values keep
    /// activations in range but mean nothing.
    pub fn random(seed: u64, storage: Storage) -> Self {
        Self::new(Source::Random(seed, storage))
    }

    /// Variables for training: each starts from `source` where that has it, else as its layer
    /// says, from a generator seeded by `seed` and the parameter's name.
    pub fn trainable(source: Option<Arc<dyn TensorSource>>, seed: u64) -> Self {
        Self::new(Source::Variables(source, seed))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            loras: Vec::new(),
            low_bit: Vec::new(),
            watchers: Vec::new(),
            quantized: Vec::new(),
            exact: false,
            location: Location::HOST,
            headers_only: false,
            trained: Vec::new(),
        }
    }

    /// Of variables for training, only those of these parts (`decoder.conv_out`) are to be changed: whatever else a model
    /// has stays as the source has it, and gradients pass through it. All are where no part is named.
    pub fn trained(mut self, parts: &[String]) -> Self {
        self.trained.extend_from_slice(parts);
        self
    }

    /// Adds `scale` times what `lora` says to the weights that it names, and to those of another that
    /// was added. Variables start from the adapted weights.
    pub fn lora(mut self, lora: Arc<Lora>, scale: f32) -> Self {
        self.loras.push((lora, scale));
        self
    }

    /// Adds layers that are held in few bits, with how their inputs are rounded; a layer that is not
    /// among them is read plainly.
    pub fn low_bit(mut self, source: Arc<dyn LowBitSource>, activations: Activations) -> Self {
        self.low_bit.push((source, activations));
        self
    }

    /// Lets `watcher` see what goes into every linear layer, as every other watcher that was added.
    pub fn watcher(mut self, watcher: InputWatcher) -> Self {
        self.watchers.push(watcher);
        self
    }

    /// Has linear layers quantize their weights, one at a time, as they are loaded. `kept` gives the
    /// weights of an earlier load and takes those of this one; it is left alone under a LoRA, whose
    /// weights are others.
    pub fn quantize(mut self, how: Quantization, kept: Option<Arc<QuantizedWeights>>) -> Self {
        if how != Quantization::None || kept.is_some() {
            self.quantized.push((how, kept));
        }
        self
    }

    /// If `exact`, layers compute convolutions tap by tap instead of by Winograd's transforms, whose
    /// results differ in the last bits.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact |= exact;
        self
    }

    /// Puts parameters, and so the layers that are made of them, on a card or into ordinary memory.
    pub fn at(mut self, location: &Location) -> Self {
        self.location = location.clone();
        self
    }

    /// Looks at names and shapes only: a model built from such parameters holds next to nothing and
    /// computes nothing, but [`Weights::finish`] reports what it would report of a load, values apart.
    /// Without a file every parameter exists. Nothing is quantized; of a LoRA too only names and shapes count.
    pub fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// The parameters.
    ///
    /// # Errors
    /// Additions that contradict each other or the source.
    pub fn build(mut self) -> Result<Weights> {
        self.check()?;
        if self.headers_only {
            self.quantized.clear();
            self.location = Location::HOST;
        }
        let origin = match self.source {
            Source::File(source) => Origin::File(source),
            Source::Random(seed, storage) => Origin::Random(seed, storage),
            Source::Variables(source, seed) => Origin::Variables {
                source,
                seed,
                made: Variables::default(),
                trained: self.trained,
            },
        };
        let (quantization, kept) = self.quantized.into_iter().next().unwrap_or_default();
        let adapters = Adapters::new(self.loras)?;
        Ok(Weights::over(Shared {
            origin,
            kept: kept.filter(|_| adapters.is_empty()),
            quantization,
            adapters,
            low_bit: self.low_bit.into_iter().next(),
            watcher: joined(self.watchers),
            exact: self.exact,
            location: self.location,
            headers: self.headers_only.then(Headers::default),
            ledger: Ledger::default(),
        }))
    }

    fn check(&self) -> Result<()> {
        let refuse = |problem: &str| Err(Error::Config(format!("weights: {problem}")));
        if self.low_bit.len() > 1 {
            return refuse("layers of few bits come from two sources; a layer can be of one only");
        }
        if self.quantized.len() > 1 {
            return refuse("it is said twice how layers are quantized; say it once");
        }
        let quantized = self.quantized.first();
        if quantized.is_some_and(|(how, _)| *how == Quantization::None) {
            return refuse("quantized weights are kept, but no layer is to be quantized");
        }
        if self.location != Location::HOST && !self.headers_only {
            if self
                .low_bit
                .iter()
                .any(|(_, how)| *how == Activations::Four)
            {
                return refuse(
                    "activations of 4 bits are computed on the CPU only; take 8 bits, or --device cpu",
                );
            }
            if matches!(self.source, Source::Variables(..)) {
                return refuse("training runs on the CPU only; use --device cpu");
            }
        }
        if !self.trained.is_empty() && !matches!(self.source, Source::Variables(Some(_), _)) {
            return refuse("parts are trained of a model that is not there; give it");
        }
        if let Source::Variables(source, _) = &self.source {
            if self.headers_only {
                return refuse(
                    "parameters that are trained have values, not names and shapes alone",
                );
            }
            if !self.low_bit.is_empty() || quantized.is_some() {
                return refuse(
                    "weights of few bits cannot be trained; load the full ones, not quantized",
                );
            }
            if source.is_none() && !self.loras.is_empty() {
                return refuse(
                    "a LoRA adapts the weights of a file, these are trained from nothing",
                );
            }
        }
        Ok(())
    }
}

/// One watcher for all.
fn joined(mut watchers: Vec<InputWatcher>) -> Option<InputWatcher> {
    if watchers.len() < 2 {
        return watchers.pop();
    }
    Some(Arc::new(move |name, x| {
        watchers.iter().for_each(|watch| watch(name, x));
    }))
}
