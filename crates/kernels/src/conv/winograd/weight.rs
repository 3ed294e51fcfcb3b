//! Weights that were transformed when they were loaded.

use super::tile::Tile;
use super::transform::{shares, taps};
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

    /// The weight `[outputs, 3, 3, inputs]` as it was before, but for rounding.
    pub fn unpack(&self) -> Vec<f32> {
        let (width, inputs) = (9 * self.inputs.max(1), self.inputs.max(1));
        let mut sums = vec![0.0f64; self.outputs * 9 * self.inputs];
        for (number, point) in self.points.iter().enumerate() {
            let shares = shares(self.tile, number);
            if shares == [0.0; 9] {
                continue;
            }
            let values = point.unpack();
            let filters = sums.par_chunks_exact_mut(width);
            filters
                .zip(values.par_chunks_exact(inputs))
                .for_each(|(filter, values)| {
                    for (tap, share) in filter.chunks_exact_mut(inputs).zip(&shares) {
                        if *share != 0.0 {
                            for (sum, value) in tap.iter_mut().zip(values) {
                                *sum += share * f64::from(*value);
                            }
                        }
                    }
                });
        }
        sums.into_iter().map(|sum| sum as f32).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_comes_back_from_its_points() {
        let (outputs, inputs) = (5, 7);
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 25.0;
        let w: Vec<f32> = (0..outputs * 9 * inputs).map(value).collect();
        for tile in [Tile::Four, Tile::Six] {
            let found = WinogradWeight::of_tile(tile, &w, outputs, inputs).unpack();
            for (found, wanted) in found.iter().zip(&w) {
                assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
            }
        }
    }
}
