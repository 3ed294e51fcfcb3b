//! Products with weights of 4 or 8 bits, quantized once, when they are loaded.
//!
//! `y = x·wᵀ` for `x` `[rows, inputs]` and `w` `[outputs, inputs]`. A weight has one bf16 scale for
//! every [`GROUP`] inputs of an output: 4.5 or 8.5 bits a value in memory. Rows of `x` are quantized to
//! 8 bits with the same groups while they are used, products are sums of integers, and scales come in
//! once a group. Measured against widening the weights for the f32 kernel this is the faster way for
//! any number of rows, on AVX2 (`maddubs`) as on AVX-512 (VNNI).
//!
//! Scales are symmetric, without a minimum: at 4 bits, the value of largest magnitude becomes −8 and
//! a least-squares fit sets the scale, which loses 8.5 % (relative L2) of a normal weight; a minimum
//! would take that to 7.8 % for half a bit more, groups of 64 would lose 9.6 % for a quarter of a bit
//! less. At 8 bits 0.55 % is lost. Quantizing `x` adds 0.55 %.
//!
//! Every sum has an order of its own that depends on neither the number of rows nor of threads, so
//! results are the same for any of them.

mod dot;
mod matrix;
mod rows;

pub use matrix::QuantizedMatrix;

use crate::gemm::layout::{Out, PANEL};
use crate::parallel::{Work, rows_mut};
use crate::simd::{self, Level};
use dot::panel_product;
use rayon::prelude::*;
use rows::{RowGroup, quantize_rows};
use std::cell::RefCell;

/// Inputs that share a scale.
pub const GROUP: usize = 32;

/// Bits of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Codes of −8..7.
    Four,
    /// Codes of −127..127.
    Eight,
}

/// Rows that meet a panel together: their groups stay in the second-level cache.
const BLOCK_ROWS: usize = 64;

thread_local! {
    /// Groups of the rows in work, kept from product to product.
    static GROUPS: RefCell<Vec<RowGroup>> = const { RefCell::new(Vec::new()) };
}

/// `y[rows, outputs] = x[rows, inputs]·wᵀ`; every finished run of rows then goes through
/// `finish(first_row, rows)`, while it is still in a cache.
///
/// # Panics
/// When `x` and `y` are not whole rows, or not equally many.
pub fn forward<F>(x: &[f32], w: &QuantizedMatrix, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    forward_at(simd::level(), x, w, y, Some(finish));
}

/// As [`forward`], with nothing to follow.
///
/// # Panics
/// As [`forward`].
pub fn multiply(x: &[f32], w: &QuantizedMatrix, y: &mut [f32]) {
    forward_at(simd::level(), x, w, y, None::<fn(usize, &mut [f32])>);
}

fn forward_at<F>(level: Level, x: &[f32], w: &QuantizedMatrix, y: &mut [f32], finish: Option<F>)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let (inputs, outputs) = (w.inputs(), w.outputs());
    if outputs == 0 || y.is_empty() {
        return;
    }
    assert!(y.len().is_multiple_of(outputs), "rows of {outputs}");
    let rows = y.len() / outputs;
    assert_eq!(x.len(), rows * inputs, "{rows} rows of {inputs} inputs");
    if inputs == 0 {
        y.fill(0.0);
        if let Some(finish) = finish {
            finish(0, y);
        }
        return;
    }
    let mut groups = GROUPS.take();
    for (index, y) in y.chunks_mut(BLOCK_ROWS * outputs).enumerate() {
        let first = index * BLOCK_ROWS;
        let count = y.len() / outputs;
        let x = &x[first * inputs..(first + count) * inputs];
        groups.resize(count * inputs.div_ceil(GROUP), RowGroup::ZERO);
        quantize_rows(level, x, inputs, count, &mut groups);
        block(level, w, &groups, y);
        if let Some(finish) = &finish {
            rows_mut(y, outputs, |row, run| finish(first + row, run));
        }
    }
    GROUPS.set(groups);
}

/// All outputs of a block of rows.
fn block(level: Level, w: &QuantizedMatrix, groups: &[RowGroup], y: &mut [f32]) {
    let outputs = w.outputs();
    let rows = y.len() / outputs;
    let panels = outputs.div_ceil(PANEL);
    let out = Out::new(y, outputs);
    let run = |range: std::ops::Range<usize>| {
        let mut sums = [[0.0f32; PANEL]; BLOCK_ROWS];
        let sums = &mut sums[..rows];
        for index in range {
            panel_product(level, w, index, groups, sums);
            let column = index * PANEL;
            let width = PANEL.min(outputs - column);
            // SAFETY: columns of this panel are written by this call alone, and lie within `y`.
            unsafe { write(out, outputs, column, width, sums) };
        }
    };
    let threads = rayon::current_num_threads();
    let work = Work {
        multiplications: rows * outputs * w.inputs(),
        bytes: w.bytes(),
    };
    if threads == 1 || !work.is_worth_threads() {
        run(0..panels);
        return;
    }
    let step = panels.div_ceil(4 * threads);
    (0..panels.div_ceil(step)).into_par_iter().for_each(|part| {
        run(part * step..((part + 1) * step).min(panels));
    });
}

/// Puts `width` sums of every row at `column` of its row of `outputs`.
///
/// # Safety
/// `out` has as many rows, they hold these columns, and nobody else uses them.
unsafe fn write(out: Out, outputs: usize, column: usize, width: usize, sums: &[[f32; PANEL]]) {
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: as promised.
        unsafe {
            let to = out.data.add(i * outputs + column);
            std::ptr::copy_nonoverlapping(sums.as_ptr(), to, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    /// Relative L2 of `y` to `want`.
    fn error(y: &[f32], want: &[f32]) -> f32 {
        let lost: f32 = y.iter().zip(want).map(|(a, b)| (a - b) * (a - b)).sum();
        (lost / want.iter().map(|v| v * v).sum::<f32>()).sqrt()
    }

    /// What the kernels compute, from unpacked weights and quantized rows.
    fn plain(x: &[f32], w: &QuantizedMatrix, rows: usize) -> Vec<f32> {
        let inputs = w.inputs();
        let mut groups = vec![RowGroup::ZERO; rows * inputs.div_ceil(GROUP)];
        quantize_rows(simd::level(), x, inputs, rows, &mut groups);
        let mut rounded = x.to_vec();
        for (i, row) in rounded.chunks_exact_mut(inputs).enumerate() {
            for (k, value) in row.iter_mut().enumerate() {
                let group = &groups[k / GROUP * rows + i];
                *value = f32::from(group.codes[k % GROUP]) * group.scale;
            }
        }
        let bias = vec![0.0; w.outputs()];
        reference::linear(&rounded, inputs, &w.unpack(), w.outputs(), &bias)
    }

    const SIZES: [(usize, usize, usize); 7] = [
        (1, 1, 1),
        (1, 256, 48),
        (3, 7, 5),
        (8, 300, 33),
        (32, 257, 100),
        (64, 64, 16),
        (150, 96, 47),
    ];

    #[test]
    fn every_level_computes_what_the_codes_say() {
        for (rows, inputs, outputs) in SIZES {
            let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
            for bits in [Bits::Four, Bits::Eight] {
                let matrix = QuantizedMatrix::from_f32(&w, outputs, inputs, bits);
                let want = plain(&x, &matrix, rows);
                for level in Level::available() {
                    let mut y = vec![f32::NAN; rows * outputs];
                    forward_at(level, &x, &matrix, &mut y, None::<fn(usize, &mut [f32])>);
                    assert_close(&y, &want, 1e-5);
                }
            }
        }
    }

    #[test]
    fn extreme_codes_do_not_overflow() {
        let inputs = 64;
        for sign in [1.0f32, -1.0] {
            let (x, w) = (vec![sign; 2 * inputs], vec![1.0; 16 * inputs]);
            for bits in [Bits::Four, Bits::Eight] {
                let matrix = QuantizedMatrix::from_f32(&w, 16, inputs, bits);
                let want = plain(&x, &matrix, 2);
                for level in Level::available() {
                    let mut y = vec![0.0; 32];
                    forward_at(level, &x, &matrix, &mut y, None::<fn(usize, &mut [f32])>);
                    assert_close(&y, &want, 1e-6);
                    assert!((y[0] - sign * 64.0).abs() < 0.1, "{}", y[0]);
                }
            }
        }
    }

    /// The bounds that the documentation states, on values as spread as a normal distribution's.
    #[test]
    fn products_stay_within_their_bounds_of_f32() {
        let (rows, inputs, outputs) = (32, 1024, 256);
        let normal = |count: usize, seed: u64| -> Vec<f32> {
            let parts: Vec<Vec<f32>> = (0..6).map(|part| noise(count, 10 * seed + part)).collect();
            (0..count)
                .map(|i| parts.iter().map(|part| part[i]).sum())
                .collect()
        };
        let (x, w) = (normal(rows * inputs, 1), normal(outputs * inputs, 2));
        let want = reference::linear(&x, inputs, &w, outputs, &vec![0.0; outputs]);
        for (bits, bound) in [(Bits::Four, 0.09), (Bits::Eight, 0.01)] {
            let matrix = QuantizedMatrix::from_f32(&w, outputs, inputs, bits);
            let mut y = vec![0.0; rows * outputs];
            multiply(&x, &matrix, &mut y);
            let error = error(&y, &want);
            assert!(error < bound, "{bits:?}: {error}");
            assert!(
                error > bound / 4.0,
                "{bits:?}: {error}: is anything quantized at all?"
            );
        }
    }

    #[test]
    fn results_depend_on_neither_threads_nor_company() {
        let (rows, inputs, outputs) = (70, 320, 300);
        let x = noise(rows * inputs, 1);
        let w = QuantizedMatrix::from_f32(&noise(outputs * inputs, 2), outputs, inputs, Bits::Four);
        let run = |threads: usize, x: &[f32]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let mut y = vec![0.0; x.len() / inputs * outputs];
            pool.unwrap().install(|| multiply(x, &w, &mut y));
            y
        };
        let all = run(1, &x);
        assert!([2, 3, 8].into_iter().all(|threads| run(threads, &x) == all));
        for row in [0, 5, 69] {
            let alone = run(2, &x[row * inputs..(row + 1) * inputs]);
            assert_eq!(alone, all[row * outputs..(row + 1) * outputs]);
        }
    }

    #[test]
    fn every_row_is_finished_once_and_nan_is_seen() {
        for rows in [1, 64, 130] {
            let w = QuantizedMatrix::from_f32(&noise(20 * 40, 2), 20, 40, Bits::Eight);
            let mut x = vec![0.0; rows * 40];
            x[39] = f32::NAN;
            let mut y = vec![0.0; rows * 20];
            forward(&x, &w, &mut y, |first, run| {
                for (offset, row) in run.chunks_exact_mut(20).enumerate() {
                    row.iter_mut()
                        .for_each(|y| *y += (first + offset) as f32 + 1.0);
                }
            });
            for (row, values) in y.chunks_exact(20).enumerate() {
                let want = row as f32 + 1.0;
                assert!(
                    values
                        .iter()
                        .all(|y| if row == 0 { y.is_nan() } else { *y == want })
                );
            }
        }
    }
}
