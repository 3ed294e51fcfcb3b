//! Weights that mean nothing.

use brisk_nn::Storage;

/// Random weights in place of a checkpoint's, to measure speed at published shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomWeights {
    /// Seed of the values.
    pub seed: u64,
    /// How matrices are kept.
    pub storage: Storage,
}
