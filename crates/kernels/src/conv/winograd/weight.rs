//! Weights that were transformed when they were loaded.

use super::tile::Tile;
use super::transform::taps;
use crate::gemm::packed::PackedMatrix;
use crate::simd::simd_dispatch;
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
        Self::of_tile(Tile::of(outputs, inputs), w, outputs, inputs)
    }

    /// As [`new`](Self::new), for one convolution over a map of this height and width.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub(in crate::conv) fn of_map(
        [height, width]: [usize; 2],
        w: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> Self {
        Self::of_tile(Tile::of_map(height, width), w, outputs, inputs)
    }

    fn of_tile(tile: Tile, w: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            w.len(),
            outputs * 9 * inputs,
            "weight of {outputs}x3x3x{inputs}"
        );
        let matrix = |point: usize| {
            let taps = taps(tile, point);
            let mut values = vec![0.0f32; outputs * inputs];
            let filters = values.par_chunks_exact_mut(inputs.max(1));
            filters
                .zip(w.par_chunks_exact(9 * inputs.max(1)))
                .for_each(|(out, filter)| transformed(&taps, filter, out));
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

/// Channels whose sums are held at once.
const HELD: usize = 64;

simd_dispatch! {
    /// A point of a filter `[9, inputs]`, summed in f64.
    fn transformed(taps: &[f64; 9], filter: &[f32], out: &mut [f32]) {
        let inputs = out.len();
        for (block, out) in out.chunks_mut(HELD).enumerate() {
            let mut sums = [0.0f64; HELD];
            for (tap, values) in taps.iter().zip(filter.chunks_exact(inputs)) {
                if *tap != 0.0 {
                    for (sum, value) in sums.iter_mut().zip(&values[block * HELD..]) {
                        *sum += tap * f64::from(*value);
                    }
                }
            }
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = *sum as f32;
            }
        }
    }
}
