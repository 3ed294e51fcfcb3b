//! The linear layer `y = x wᵀ + b`, with `w` as checkpoints store it: `[outputs, inputs]`.

pub use super::widen::Half;
use super::{Threads, View, multiply};
use crate::parallel;
use crate::simd::simd_dispatch;

/// `y[rows, outputs] = x[rows, inputs]·wᵀ + bias`.
pub fn forward(
    x: &[f32],
    inputs: usize,
    w: &[f32],
    outputs: usize,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let rows = rows(x, inputs);
    let accumulate = fill_bias(bias, y, outputs);
    let b = View::new(w, outputs, inputs).transposed();
    multiply(
        y,
        outputs,
        View::new(x, rows, inputs),
        b,
        1.0,
        accumulate,
        Threads::Pool,
    );
}

/// As [`forward`], with the weight stored in 16 bits. Slices of the weight are widened to f32 as
/// they are needed, so the whole never exists in f32.
pub fn forward_half<H: Half>(
    x: &[f32],
    inputs: usize,
    w: &[H],
    outputs: usize,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    /// Widened weights that fit the second-level cache together with a block of the input.
    const BLOCK: usize = 256 * 1024;
    let rows = rows(x, inputs);
    assert_eq!(w.len(), inputs * outputs, "weight of {outputs}x{inputs}");
    let accumulate = fill_bias(bias, y, outputs);
    let step = (BLOCK / inputs.max(1)).clamp(16, 512).min(outputs.max(1));
    let mut wide = vec![0.0f32; step * inputs];
    for first in (0..outputs).step_by(step) {
        let count = step.min(outputs - first);
        let wide = &mut wide[..count * inputs];
        let narrow = &w[first * inputs..(first + count) * inputs];
        parallel::rows_mut(wide, inputs, |row, out| {
            H::widen(&narrow[row * inputs..row * inputs + out.len()], out);
        });
        let b = View::new(wide, count, inputs).transposed();
        let a = View::new(x, rows, inputs);
        multiply(
            &mut y[first..],
            outputs,
            a,
            b,
            1.0,
            accumulate,
            Threads::Pool,
        );
    }
}

/// Gradient of the input: `dx[rows, inputs] = dy·w`.
pub fn backward_input(dy: &[f32], outputs: usize, w: &[f32], inputs: usize, dx: &mut [f32]) {
    let rows = rows(dy, outputs);
    let (a, b) = (View::new(dy, rows, outputs), View::new(w, outputs, inputs));
    multiply(dx, inputs, a, b, 1.0, false, Threads::Pool);
}

/// Gradient of the weight: `dw[outputs, inputs] = dyᵀ·x`.
pub fn backward_weight(dy: &[f32], outputs: usize, x: &[f32], inputs: usize, dw: &mut [f32]) {
    let rows = rows(dy, outputs);
    let (a, b) = (
        View::new(dy, rows, outputs).transposed(),
        View::new(x, rows, inputs),
    );
    multiply(dw, inputs, a, b, 1.0, false, Threads::Pool);
}

/// Gradient of the bias: the column sums of `dy`.
pub fn backward_bias(dy: &[f32], outputs: usize) -> Vec<f32> {
    parallel::reduce_rows(rows(dy, outputs), outputs, |range, sum| {
        add_rows(&dy[range.start * outputs..range.end * outputs], sum);
    })
}

simd_dispatch! {
    /// Adds every row of `rows` (of the width of `sum`) to `sum`.
    pub(crate) fn add_rows(rows: &[f32], sum: &mut [f32]) {
        for row in rows.chunks_exact(sum.len()) {
            for (s, r) in sum.iter_mut().zip(row) {
                *s += r;
            }
        }
    }
}

simd_dispatch! {
    /// Adds the bias to every row of `rows`.
    pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (y, b) in row.iter_mut().zip(bias) { *y += b; }
        }
    }
}

fn rows(x: &[f32], width: usize) -> usize {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values do not fill rows of {width}",
        x.len()
    );
    x.len() / width
}

/// Writes the bias to every row; tells whether there was one, so that the product must add to it.
pub(crate) fn fill_bias(bias: Option<&[f32]>, y: &mut [f32], outputs: usize) -> bool {
    let Some(bias) = bias else { return false };
    assert_eq!(bias.len(), outputs, "bias length");
    parallel::rows_mut(y, outputs, |_, chunk| {
        for row in chunk.chunks_exact_mut(outputs) {
            row.copy_from_slice(bias);
        }
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn matches_reference_at_odd_sizes() {
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 7, 5), (33, 65, 17), (130, 40, 300)] {
            let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
            let (b, dy) = (noise(outputs, 3), noise(rows * outputs, 4));
            let mut y = vec![0.0; rows * outputs];
            forward(&x, inputs, &w, outputs, Some(&b), &mut y);
            let want = reference::linear(&x, inputs, &w, outputs, &b);
            assert_close(&y, &want, 1e-5);

            let narrow: Vec<half::bf16> = w.iter().map(|&v| half::bf16::from_f32(v)).collect();
            let rounded: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            let mut y_half = vec![0.0; rows * outputs];
            forward_half(&x, inputs, &narrow, outputs, Some(&b), &mut y_half);
            assert_close(
                &y_half,
                &reference::linear(&x, inputs, &rounded, outputs, &b),
                1e-5,
            );

            let mut dx = vec![0.0; x.len()];
            backward_input(&dy, outputs, &w, inputs, &mut dx);
            let mut dw = vec![0.0; w.len()];
            backward_weight(&dy, outputs, &x, inputs, &mut dw);
            let db = backward_bias(&dy, outputs);
            for o in 0..outputs {
                let sum: f64 = (0..rows).map(|r| dy[r * outputs + o] as f64).sum();
                assert!((sum - db[o] as f64).abs() < 1e-4);
                for i in 0..inputs {
                    let sum: f64 = (0..rows)
                        .map(|r| dy[r * outputs + o] as f64 * x[r * inputs + i] as f64)
                        .sum();
                    assert!((sum - dw[o * inputs + i] as f64).abs() < 1e-4);
                }
            }
            for r in 0..rows {
                for i in 0..inputs {
                    let sum: f64 = (0..outputs)
                        .map(|o| dy[r * outputs + o] as f64 * w[o * inputs + i] as f64)
                        .sum();
                    assert!((sum - dx[r * inputs + i] as f64).abs() < 1e-4);
                }
            }
        }
    }
}
