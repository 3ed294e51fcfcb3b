//! The gradient of the weight: with V = BᵀdB and M = A·dy·Aᵀ of every tile, the gradient of a point's matrix is the sum of
//! M·Vᵀ over the tiles, and that of the weight GᵀUG. As many products are saved as in the convolution itself.

use super::tile::Tile;
use super::transform::{LANES, MOST_POINTS, Strides, taps, transform_gradient, transform_input};
use super::{WinogradShape, pixels_of};
use crate::gemm::layout::DEPTH;
use crate::gemm::{Threads, View, multiply};
use crate::parallel;
use crate::scratch::with_buffer;
use crate::simd::simd_dispatch;
use rayon::prelude::*;

/// Tiles that are transformed together, and values of transformed tiles that are held at once unless a run has more.
const RUN: usize = 192;
const HELD: usize = 1 << 21;

/// Gradient of the weight `[outputs, 3, 3, inputs]` of a convolution over `x` whose outputs have the gradient `dy`.
/// Upsampled maps have none.
///
/// # Panics
/// When a slice does not have the size that the others say.
pub(in crate::conv) fn weight_gradient(
    shape: &WinogradShape,
    [inputs, outputs]: [usize; 2],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let pixels = shape.batch * shape.height * shape.width;
    assert!(!shape.upsample, "the gradient of {shape:?}");
    assert_eq!(x.len(), pixels * inputs, "input of {shape:?}");
    assert_eq!(dy.len(), pixels * outputs, "output of {shape:?}");
    assert_eq!(dw.len(), outputs * 9 * inputs, "weight of {shape:?}");
    let tile = Tile::of_map(shape.height, shape.width);
    let points = tile.points();
    // Rows of whole lanes.
    let [wide_inputs, wide_outputs] = [inputs, outputs].map(|count| count.next_multiple_of(LANES));
    let (rows, columns) = shape.tiles(tile);
    let tiles = shape.batch * rows * columns;
    // Runs of tiles that are transformed together, as many at once as threads share.
    let run = RUN.min(tiles.max(1));
    // All channels of a tile in a row, blocks of them side by side.
    let rows_of = |wide: usize| Strides {
        point: run * wide,
        block: DEPTH,
    };
    let (own_inputs, own_outputs) = (points * run * wide_inputs, points * run * wide_outputs);
    let runs = tiles
        .div_ceil(run)
        .min((HELD / (own_inputs + own_outputs).max(1)).max(1));
    let mut sums = vec![0.0f32; points * outputs * inputs];
    with_buffer(runs * own_inputs, |seen| {
        with_buffer(runs * own_outputs, |wanted| {
            for first in (0..tiles).step_by(run * runs) {
                let count = |number: usize| run.min(tiles.saturating_sub(first + number * run));
                let buffers = seen.par_chunks_exact_mut(own_inputs.max(1));
                let buffers = buffers.zip(wanted.par_chunks_exact_mut(own_outputs.max(1)));
                buffers.enumerate().for_each(|(number, (seen, wanted))| {
                    for index in 0..count(number) {
                        let at = first + number * run + index;
                        let place = (at / (rows * columns), at / columns % rows, at % columns);
                        let pixels = pixels_of(shape, tile, place, inputs);
                        let strides = rows_of(wide_inputs);
                        let seen = &mut seen[index * wide_inputs..];
                        transform_input(tile, x, &pixels, inputs, seen, strides);
                        let pixels = outputs_of(shape, tile, place, outputs);
                        let wanted = &mut wanted[index * wide_outputs..];
                        transform_gradient(
                            tile,
                            dy,
                            &pixels,
                            outputs,
                            wanted,
                            rows_of(wide_outputs),
                        );
                    }
                });
                let matrices = sums.par_chunks_exact_mut((outputs * inputs).max(1));
                matrices.enumerate().for_each(|(point, sum)| {
                    let buffers = seen.chunks_exact(own_inputs.max(1));
                    let buffers = buffers.zip(wanted.chunks_exact(own_outputs.max(1)));
                    for (number, (seen, wanted)) in buffers.enumerate() {
                        let count = count(number);
                        let seen = &seen[point * run * wide_inputs..][..count * wide_inputs];
                        let wanted = &wanted[point * run * wide_outputs..][..count * wide_outputs];
                        multiply(
                            sum,
                            inputs,
                            View::strided(wanted, count, outputs, wide_outputs, 1).transposed(),
                            View::strided(seen, count, inputs, wide_inputs, 1),
                            1.0,
                            true,
                            Threads::One,
                        );
                    }
                });
            }
        });
    });
    let all: Vec<[f32; 9]> = (0..points)
        .map(|point| taps(tile, point).map(|tap| tap as f32))
        .collect();
    parallel::rows_mut(dw, 9 * inputs, |output, chunk| {
        for (offset, filter) in chunk.chunks_exact_mut(9 * inputs).enumerate() {
            filter.fill(0.0);
            for (taps, sums) in all.iter().zip(sums.chunks_exact(outputs * inputs)) {
                gather(taps, &sums[(output + offset) * inputs..][..inputs], filter);
            }
        }
    });
}

/// Where the channels of a tile's output pixels begin, none outside the picture.
fn outputs_of(
    shape: &WinogradShape,
    tile: Tile,
    (picture, row, column): (usize, usize, usize),
    channels: usize,
) -> [Option<usize>; MOST_POINTS] {
    let side = tile.outputs();
    let mut pixels = [None; MOST_POINTS];
    for (index, pixel) in pixels[..side * side].iter_mut().enumerate() {
        let (y, x) = (row * side + index / side, column * side + index % side);
        if y < shape.height && x < shape.width {
            *pixel = Some(((picture * shape.height + y) * shape.width + x) * channels);
        }
    }
    pixels
}

simd_dispatch! {
    /// What a point's gradient adds to those of a filter's taps.
    fn gather(taps: &[f32; 9], sums: &[f32], filter: &mut [f32]) {
        for (tap, filter) in taps.iter().zip(filter.chunks_exact_mut(sums.len())) {
            if *tap != 0.0 {
                for (filter, sum) in filter.iter_mut().zip(sums) {
                    *filter += tap * sum;
                }
            }
        }
    }
}
