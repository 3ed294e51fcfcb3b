//! Weights that mean nothing.

use brisk_nn::Storage;

/// Random weights in place of a checkpoint's, to measure speed at published shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomWeights {
    /// Seed of the values.
    pub seed: u64,
    /// How matrices are kept.
    pub storage: Storage,
    /// Whether SANA's transformer has 4-bit weights with a branch, as SVDQuant makes them.
    pub low_bit: bool,
}
