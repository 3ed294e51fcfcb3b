//! GPTQ (arXiv 2210.17323): inputs are rounded one after another, and what each got wrong is made up
//! for by those that follow, weighted by how the inputs go together.

use brisk_kernels::gemm::{Threads, View, multiply};
use rayon::prelude::*;

use crate::integer::{Integers, code_of};

/// Settings of the algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqSettings {
    /// Added to the diagonal, as a part of its mean.
    pub damping: f64,
    /// Inputs whose errors are collected before the rest is corrected.
    pub block: usize,
}

impl Default for GptqSettings {
    fn default() -> Self {
        Self {
            damping: 0.01,
            block: 128,
        }
    }
}

/// Times that a tenth of the damping is added until the matrix can be factorised.
const TRIES: usize = 250;

/// Rounds `weight` `[outputs, width]` for inputs like `x` `[rows, width]`, with the groups and scales
/// of `start` (its plain rounding): inputs with the largest activations go first.
pub fn round(
    weight: &[f32],
    width: usize,
    x: &[f32],
    start: &Integers,
    most: f32,
    settings: &GptqSettings,
) -> Integers {
    let outputs = weight.len() / width;
    let mut hessian = hessian(x, width);
    let dead: Vec<bool> = (0..width).map(|k| hessian[k * width + k] == 0.0).collect();
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|i, j| hessian[j * width + j].total_cmp(&hessian[i * width + i]));
    for k in (0..width).filter(|k| dead[*k]) {
        hessian[k * width + k] = 1.0;
    }
    let Some(factor) = inverse_factor(&hessian, width, &order, settings.damping) else {
        return start.clone();
    };
    drop(hessian);
    let groups = width / start.group;
    let mut rest = vec![0.0f32; outputs * width];
    for (to, from) in rest.chunks_exact_mut(width).zip(weight.chunks_exact(width)) {
        for (to, k) in to.iter_mut().zip(&order) {
            *to = if dead[*k] { 0.0 } else { from[*k] };
        }
    }
    let mut codes = vec![0i8; outputs * width];
    let mut errors = vec![0.0f32; outputs * settings.block];
    for first in (0..width).step_by(settings.block) {
        let last = (first + settings.block).min(width);
        let count = last - first;
        let work = rest
            .par_chunks_exact_mut(width)
            .zip(codes.par_chunks_exact_mut(width))
            .zip(errors[..outputs * count].par_chunks_exact_mut(count))
            .zip(start.scales.par_chunks_exact(groups));
        work.for_each(|(((row, codes), errors), scales)| {
            for j in first..last {
                let scale = scales[order[j] / start.group];
                let code = code_of(row[j], scale, most);
                codes[order[j]] = code;
                let diagonal = factor[j * width + j];
                let error = (row[j] - f32::from(code) * scale) / diagonal;
                errors[j - first] = error;
                for (value, f) in row[j..last].iter_mut().zip(&factor[j * width + j..]) {
                    *value -= error * f;
                }
            }
        });
        if last < width {
            let a = View::new(&errors[..outputs * count], outputs, count);
            let b = View::strided(
                &factor[first * width + last..],
                count,
                width - last,
                width,
                1,
            );
            multiply(&mut rest[last..], width, a, b, -1.0, true, Threads::Pool);
        }
    }
    Integers {
        codes,
        scales: start.scales.clone(),
        group: start.group,
    }
}

/// 2/rows·xᵀx.
fn hessian(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / width;
    let mut out = vec![0.0; width * width];
    let view = View::new(x, rows, width);
    let scale = 2.0 / rows.max(1) as f32;
    multiply(
        &mut out,
        width,
        view.transposed(),
        view,
        scale,
        false,
        Threads::Pool,
    );
    out
}

/// The upper triangle U with (permuted and damped h)⁻¹ = Uᵀ·U, in f32.
///
/// The Cholesky factor of h with its order reversed, turned around, is an upper triangle R with
/// h = R·Rᵀ, so U = R⁻¹.
fn inverse_factor(h: &[f32], size: usize, order: &[usize], damping: f64) -> Option<Vec<f32>> {
    let mean = (0..size).map(|k| f64::from(h[k * size + k])).sum::<f64>() / size as f64;
    let mut damp = damping * mean;
    for _ in 0..TRIES {
        let mut reversed = vec![0.0f64; size * size];
        for (i, row) in reversed.chunks_exact_mut(size).enumerate() {
            let from = &h[order[size - 1 - i] * size..][..size];
            for (j, value) in row.iter_mut().enumerate() {
                *value = f64::from(from[order[size - 1 - j]]);
            }
            row[i] += damp;
        }
        if cholesky(&mut reversed, size) {
            return Some(upper_inverse(&reversed, size));
        }
        damp += 0.1 * damping * mean.max(f64::MIN_POSITIVE);
    }
    None
}

/// The lower factor in place, row by row in blocks; false where the matrix is not positive.
fn cholesky(a: &mut [f64], size: usize) -> bool {
    const BLOCK: usize = 64;
    for first in (0..size).step_by(BLOCK) {
        let last = (first + BLOCK).min(size);
        // Columns of the block, for its own rows and then for those below.
        for j in first..last {
            for i in j..last {
                let (row_j, row_i) = (&a[j * size..][first..j], &a[i * size..][first..j]);
                let sum: f64 = row_i.iter().zip(row_j).map(|(x, y)| x * y).sum();
                let value = a[i * size + j] - sum;
                if i == j {
                    if value <= 0.0 || !value.is_finite() {
                        return false;
                    }
                    a[j * size + j] = value.sqrt();
                } else {
                    a[i * size + j] = value / a[j * size + j];
                }
            }
        }
        let (above, below) = a.split_at_mut(last * size);
        let block = &above[first * size..];
        below.par_chunks_exact_mut(size).for_each(|row| {
            for j in first..last {
                let other = &block[(j - first) * size..][..size];
                let sum: f64 = (first..j).map(|k| row[k] * other[k]).sum();
                row[j] = (row[j] - sum) / other[j];
            }
        });
        // What the block takes from the rest: rows below, columns up to the diagonal.
        let columns: Vec<Vec<f64>> = below
            .chunks_exact(size)
            .map(|row| row[first..last].to_vec())
            .collect();
        below
            .par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(i, row)| {
                for (j, other) in columns[..=i].iter().enumerate() {
                    let sum: f64 = columns[i].iter().zip(other).map(|(x, y)| x * y).sum();
                    row[last + j] -= sum;
                }
            });
    }
    true
}

/// The inverse of the upper triangle that the reversed lower triangle `l` is, in f32.
fn upper_inverse(l: &[f64], size: usize) -> Vec<f32> {
    // Column j of l⁻¹ solves l·x = e_j; reversing both sides gives the upper triangle's inverse.
    // Rows of the result are independent of each other: row i of R⁻¹ is column size-1-i of l⁻¹ᵀ…
    let mut out = vec![0.0f32; size * size];
    // R = P·l·P, so R⁻¹[i, j] = l⁻¹[size-1-i, size-1-j]. Row r of l⁻¹ solves x·l = e_r.
    out.par_chunks_exact_mut(size)
        .enumerate()
        .for_each(|(i, out)| {
            let r = size - 1 - i;
            let mut x = vec![0.0f64; r + 1];
            x[r] = 1.0;
            for j in (0..=r).rev() {
                x[j] /= l[j * size + j];
                let value = x[j];
                for (x, l) in x[..j].iter_mut().zip(&l[j * size..]) {
                    *x -= value * l;
                }
            }
            for (j, value) in x.into_iter().enumerate() {
                out[size - 1 - j] = value as f32;
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HalfType;
    use brisk_kernels::reference::noise;

    #[test]
    fn the_factor_gives_the_inverse() {
        for size in [1, 5, 70, 130] {
            let x = noise(2 * size * size, 1);
            let h = hessian(&x, size);
            let mut order: Vec<usize> = (0..size).collect();
            order.reverse();
            order.rotate_left(size / 3);
            let u = inverse_factor(&h, size, &order, 0.01).unwrap();
            let mean = (0..size).map(|k| h[k * size + k]).sum::<f32>() / size as f32;
            // (UᵀU)·(permuted h + damping) = 1.
            for i in 0..size {
                for j in 0..size {
                    let mut sum = 0.0f64;
                    for k in 0..size {
                        let inverse: f64 = (0..=i.min(k))
                            .map(|m| f64::from(u[m * size + i]) * f64::from(u[m * size + k]))
                            .sum();
                        let damp = if k == j { 0.01 * mean } else { 0.0 };
                        sum += inverse * f64::from(h[order[k] * size + order[j]] + damp);
                    }
                    let want = f64::from(u8::from(i == j));
                    assert!((sum - want).abs() < 2e-3, "{size}: {i},{j}: {sum}");
                }
            }
        }
    }

    #[test]
    fn the_output_error_falls_on_inputs_that_go_together() {
        let (rows, width, outputs) = (512, 128, 48);
        // Inputs that share a few directions.
        let (mix, hidden) = (noise(12 * width, 2), noise(rows * 12, 3));
        let mut x: Vec<f32> = noise(rows * width, 4).iter().map(|v| 0.2 * v).collect();
        multiply(
            &mut x,
            width,
            View::new(&hidden, rows, 12),
            View::new(&mix, 12, width),
            1.0,
            true,
            Threads::One,
        );
        x.chunks_exact_mut(width).for_each(|row| row[7] = 0.0); // an input that is never used
        let w = noise(outputs * width, 5);
        let plain = Integers::round(&w, width, 64, 7.0, HalfType::Bf16);
        let found = round(&w, width, &x, &plain, 7.0, &GptqSettings::default());
        let error = |q: &Integers| {
            let difference: Vec<f32> = q.values().iter().zip(&w).map(|(q, w)| q - w).collect();
            let mut y = vec![0.0; rows * outputs];
            let d = View::new(&difference, outputs, width).transposed();
            multiply(
                &mut y,
                outputs,
                View::new(&x, rows, width),
                d,
                1.0,
                false,
                Threads::One,
            );
            y.iter().map(|v| f64::from(v * v)).sum::<f64>()
        };
        let (before, after) = (error(&plain), error(&found));
        assert!(after < 0.5 * before, "{before} {after}");
        assert!(found.codes.iter().all(|c| (-7..=7).contains(c)));
    }
}
