//! Where a component's weights come from.

use std::sync::Arc;

use brisk_nn::{Storage, WeightsBuilder};
use brisk_store::TensorSource;

use crate::Result;

/// A file's tensors, or made-up ones.
#[derive(Clone)]
pub enum ComponentWeights {
    /// In whichever layout the file has.
    Stored(Arc<dyn TensorSource>),
    /// At whatever shapes the configuration asks for.
    Random(RandomWeights),
}

/// Random weights in place of a checkpoint's, to measure speed at published shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomWeights {
    /// Seed of the values.
    pub seed: u64,
    /// How matrices are kept.
    pub storage: Storage,
    /// Whether the layers that are published in 4 bits are made up so, where an entry honours
    /// [`Setting::RandomLowBit`](super::Setting::RandomLowBit).
    pub low_bit: bool,
}

/// Bytes that a weight in 4 bits takes, with its part of a scale.
const LOW_BIT_BYTES: f64 = 0.53;

impl RandomWeights {
    /// Bytes that one takes.
    pub fn bytes_per_weight(&self) -> f64 {
        match self.storage {
            _ if self.low_bit => LOW_BIT_BYTES,
            Storage::F32 => 4.0,
            Storage::Bf16 => 2.0,
        }
    }
}

impl ComponentWeights {
    /// The parameters under the names that they are stored under, without 4-bit layers.
    pub fn plain(&self) -> WeightsBuilder {
        match self {
            Self::Stored(source) => WeightsBuilder::from_source(source.clone()),
            Self::Random(random) => WeightsBuilder::random(random.seed, random.storage),
        }
    }

    /// As [`plain`](Self::plain), with stored parameters under the names that `names` gives them.
    ///
    /// # Errors
    /// Those of `names`.
    pub fn renamed(
        &self,
        names: impl FnOnce(Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>>,
    ) -> Result<WeightsBuilder> {
        match self {
            Self::Stored(source) => Ok(WeightsBuilder::from_source(names(source.clone())?)),
            Self::Random(_) => Ok(self.plain()),
        }
    }
}
