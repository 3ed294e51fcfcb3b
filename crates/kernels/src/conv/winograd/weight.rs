//! Weights that were transformed when they were loaded.

use super::tile::Tile;
use super::transform::taps;
use crate::gemm::packed::PackedMatrix;
use rayon::prelude::*;

/// A transformed weight.
#[derive(Clone, Debug)]
pub struct WinogradWeight {
    /// One `[outputs, inputs]` matrix a point.
    pub(super) points: Vec<PackedMatrix>,
    pub(super) tile: Tile,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl WinogradWeight {
    /// Transforms a weight `[outputs, 3, 3, inputs]`.
    ///
    /// # Panics
    /// When `w` holds another number of values.
    pub fn new(w: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            w.len(),
            outputs * 9 * inputs,
            "weight of {outputs}x3x3x{inputs}"
        );
        let tile = Tile::of(outputs, inputs);
        let matrix = |point: usize| {
            let taps = taps(tile, point);
            let mut values = vec![0.0f32; outputs * inputs];
            let filters = values.par_chunks_exact_mut(inputs.max(1));
            filters
                .zip(w.par_chunks_exact(9 * inputs.max(1)))
                .for_each(|(out, filter)| {
                    for (i, out) in out.iter_mut().enumerate() {
                        let mut sum = 0.0;
                        for (tap, value) in taps.iter().zip(filter[i..].iter().step_by(inputs)) {
                            sum += tap * f64::from(*value);
                        }
                        *out = sum as f32;
                    }
                });
            PackedMatrix::from_f32(&values, outputs, inputs)
        };
        Self {
            points: (0..tile.points()).map(matrix).collect(),
            tile,
            inputs,
            outputs,
        }
    }

    /// Channels of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.points.iter().map(PackedMatrix::bytes).sum()
    }
}
