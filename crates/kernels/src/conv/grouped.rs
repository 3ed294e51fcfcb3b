//! 1×1 convolution in groups over channels-last maps: a small square matrix for each group.

use crate::parallel;
use crate::simd::simd_dispatch;

simd_dispatch! {
    fn rows(x: &[f32], w: &[f32], dim: usize, groups: usize, y: &mut [f32]) {
        let width = groups * dim;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            for (g, (x, y)) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).enumerate() {
                let w = &w[g * dim * dim..][..dim * dim];
                match dim {
                    32 => product::<32>(x, w, y),
                    16 => product::<16>(x, w, y),
                    _ => {
                        y.fill(0.0);
                        for (x, w) in x.iter().zip(w.chunks_exact(dim)) {
                            for (y, w) in y.iter_mut().zip(w) { *y += x * w; }
                        }
                    }
                }
            }
        }
    }
}

/// `y = Σ_k x_k·w_k` over rows of `D`, with the sums in registers.
#[inline(always)]
fn product<const D: usize>(x: &[f32], w: &[f32], y: &mut [f32]) {
    let mut sums = [0.0f32; D];
    for (x, w) in x.iter().zip(w.chunks_exact(D)) {
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum += x * w;
        }
    }
    y.copy_from_slice(&sums);
}

/// `y = x·w` group by group: `x` and `y` are rows of `groups·dim`, `w` is `[groups, dim (in), dim (out)]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn forward(x: &[f32], w: &[f32], dim: usize, groups: usize, y: &mut [f32]) {
    assert!(
        dim > 0 && w.len() == groups * dim * dim && x.len() == y.len(),
        "{groups} groups of {dim}"
    );
    let width = groups * dim;
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "rows of {width}"
    );
    parallel::rows_mut(y, width, |first, y| {
        rows(
            &x[first * width..first * width + y.len()],
            w,
            dim,
            groups,
            y,
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, noise};

    #[test]
    fn every_group_is_a_product_of_its_own() {
        for (count, dim, groups) in [(1, 1, 1), (5, 7, 3), (9, 16, 2), (70, 32, 6)] {
            let (x, w) = (noise(count * groups * dim, 1), noise(groups * dim * dim, 2));
            let mut want = vec![0.0f32; x.len()];
            for (index, want) in want.iter_mut().enumerate() {
                let (row, g, o) = (index / (groups * dim), index / dim % groups, index % dim);
                let sum: f64 = (0..dim)
                    .map(|i| {
                        let x = x[(row * groups + g) * dim + i];
                        f64::from(x) * f64::from(w[(g * dim + i) * dim + o])
                    })
                    .sum();
                *want = sum as f32;
            }
            let mut y = vec![f32::NAN; x.len()];
            forward(&x, &w, dim, groups, &mut y);
            assert_close(&y, &want, 1e-5);
        }
    }
}
