//! The weights of one component: a file's, or made up.

use std::sync::Arc;

use brisk_models::low_bit;
use brisk_models::sana::{self, SanaConfig};
use brisk_nn::{Activations, Storage, WeightsBuilder};
use brisk_store::TensorSource;

use crate::error::Result;
use crate::memory;
use crate::request::RandomWeights;

/// Where a component's weights come from.
#[derive(Clone)]
pub(super) enum ComponentWeights {
    Stored(Arc<dyn TensorSource>),
    /// Made up, so many of them.
    Random(RandomWeights, u64),
}

impl ComponentWeights {
    pub(super) fn weights(&self) -> WeightsBuilder {
        match self {
            Self::Stored(source) => WeightsBuilder::from_source(source.clone()),
            Self::Random(random, _) => WeightsBuilder::random(random.seed, random.storage),
        }
    }

    pub(super) fn stored(&self) -> Option<&Arc<dyn TensorSource>> {
        match self {
            Self::Stored(source) => Some(source),
            Self::Random(..) => None,
        }
    }

    /// As [`ComponentWeights::weights`] for a transformer, which may be quantized.
    pub(super) fn transformer(
        &self,
        config: &SanaConfig,
        activations: Activations,
    ) -> Result<WeightsBuilder> {
        match self {
            Self::Stored(source) => Ok(sana::parameters(config, source.clone(), activations)?),
            Self::Random(random, _) if random.low_bit => Ok(sana::with_random_low_bit(
                config,
                self.weights(),
                activations,
            )),
            Self::Random(..) => Ok(self.weights()),
        }
    }

    /// As [`ComponentWeights::weights`] for a text encoder, which may have 4-bit weights.
    pub(super) fn text_encoder(&self) -> Result<WeightsBuilder> {
        match self {
            Self::Stored(source) => Ok(low_bit::weight_only_parameters(source.clone())?),
            Self::Random(..) => Ok(self.weights()),
        }
    }

    /// Whether it is a file with 4-bit layers.
    pub(super) fn is_quantized(&self) -> bool {
        self.stored()
            .is_some_and(|stored| brisk_quant::file::is_quantized(&**stored))
    }

    /// Number of weights.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Stored(source) => memory::stored_values(source.as_ref()),
            Self::Random(_, count) => *count,
        }
    }

    /// Bytes that they take as they are stored.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Stored(source) => memory::stored_bytes(source.as_ref()),
            Self::Random(random, count) => count.saturating_mul(match random.storage {
                Storage::F32 => 4,
                Storage::Bf16 => 2,
            }),
        }
    }

    pub(super) fn bytes_per_weight(&self) -> f64 {
        self.bytes() as f64 / self.count().max(1) as f64
    }
}
