//! The variables of runs that train several networks.

use std::sync::Arc;

use brisk_nn::Weights;
use brisk_store::TensorSource;
use candle_core::Var;

use crate::error::Result;
use crate::session::check_start;

/// The variables of a run, each part's by itself: a part is complete when all of its own are there.
pub(crate) struct PartWeights<const N: usize>([Weights; N]);

impl<const N: usize> PartWeights<N> {
    /// From the parts of a start where there is one, else from the seed.
    pub fn new(start: Option<[Arc<dyn TensorSource>; N]>, seed: u64) -> Self {
        let parts = match start {
            Some(parts) => parts.map(Some),
            None => std::array::from_fn(|_| None),
        };
        Self(parts.map(|part| Weights::trainable(part, seed)))
    }

    /// Part by part.
    pub fn parts(&self) -> &[Weights; N] {
        &self.0
    }

    /// Refuses a start of another shape.
    pub fn check(&self, start: Option<[Arc<dyn TensorSource>; N]>) -> Result<()> {
        for (weights, part) in self.0.iter().zip(start.iter().flatten()) {
            check_start(weights, Some(&**part))?;
        }
        Ok(())
    }

    /// All variables, those of a part sorted by name.
    pub fn variables(&self) -> Vec<(String, Var)> {
        self.0.iter().flat_map(Weights::variables).collect()
    }
}
