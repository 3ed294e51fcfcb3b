//! RMS and layer normalisation over the last dimension.

use crate::parallel;
use crate::simd::simd_dispatch;

const LANES: usize = 16;

/// Sum over `i` of `term(i)`, in sixteen running sums so that it vectorises.
#[inline(always)]
pub(crate) fn lane_sum(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(i + lane);
        }
        i += LANES;
    }
    let mut total = sums.iter().sum::<f32>();
    while i < n {
        total += term(i);
        i += 1;
    }
    total
}

simd_dispatch! {
    fn rows_forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
        let c = weight.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let r = 1.0 / (lane_sum(c, |i| x[i] * x[i]) / c as f32 + eps).sqrt();
            match bias {
                Some(bias) => for i in 0..c { y[i] = x[i] * r * weight[i] + bias[i]; },
                None => for i in 0..c { y[i] = x[i] * r * weight[i]; },
            }
        }
    }
}

simd_dispatch! {
    fn rows_about_mean(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
        let c = weight.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let mean = lane_sum(c, |i| x[i]) / c as f32;
            let variance = lane_sum(c, |i| (x[i] - mean) * (x[i] - mean)) / c as f32;
            let r = 1.0 / (variance + eps).sqrt();
            match bias {
                Some(bias) => for i in 0..c { y[i] = (x[i] - mean) * r * weight[i] + bias[i]; },
                None => for i in 0..c { y[i] = (x[i] - mean) * r * weight[i]; },
            }
        }
    }
}

fn check(x: &[f32], c: usize, bias: Option<&[f32]>, y: &[f32]) {
    assert!(
        c > 0 && x.len() == y.len() && x.len().is_multiple_of(c),
        "rows of {c} in {}",
        x.len()
    );
    assert!(bias.is_none_or(|b| b.len() == c), "bias length");
}

/// `y = (x − mean) / sqrt(variance + eps) · weight + bias`, for rows as long as the weight.
pub fn layer_forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let c = weight.len();
    check(x, c, bias, y);
    parallel::rows_mut(y, c, |first, y| {
        rows_about_mean(&x[first * c..first * c + y.len()], weight, bias, eps, y);
    });
}

/// `y = x / sqrt(mean(x²) + eps) · weight + bias`, for rows as long as the weight.
pub fn rms_forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let c = weight.len();
    check(x, c, bias, y);
    parallel::rows_mut(y, c, |first, y| {
        rows_forward(&x[first * c..first * c + y.len()], weight, bias, eps, y);
    });
}

simd_dispatch! {
    fn rows_backward(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let c = weight.len();
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            let r = 1.0 / (lane_sum(c, |i| x[i] * x[i]) / c as f32 + eps).sqrt();
            let dot = lane_sum(c, |i| dy[i] * weight[i] * x[i]);
            let k = r * r * r * dot / c as f32;
            for i in 0..c { dx[i] = dy[i] * weight[i] * r - x[i] * k; }
        }
    }
}
simd_dispatch! {
    fn rows_weight(x: &[f32], eps: f32, dy: &[f32], sum: &mut [f32]) {
        let c = sum.len() / 2;
        let (dw, db) = sum.split_at_mut(c);
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            let r = 1.0 / (lane_sum(c, |i| x[i] * x[i]) / c as f32 + eps).sqrt();
            for i in 0..c {
                dw[i] += dy[i] * x[i] * r;
                db[i] += dy[i];
            }
        }
    }
}

/// Gradients of [`rms_forward`]: writes `dx`, returns those of the weight and of the bias.
pub fn rms_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let c = weight.len();
    assert!(
        c > 0 && x.len() == dy.len() && x.len() == dx.len() && x.len().is_multiple_of(c),
        "rows of {c}"
    );
    parallel::rows_mut(dx, c, |first, dx| {
        let range = first * c..first * c + dx.len();
        rows_backward(&x[range.clone()], weight, eps, &dy[range], dx);
    });
    let mut sums = parallel::reduce_rows(x.len() / c, 2 * c, |rows, sum| {
        let range = rows.start * c..rows.end * c;
        rows_weight(&x[range.clone()], eps, &dy[range], sum);
    });
    let bias = sums.split_off(c);
    (sums, bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, assert_gradient, noise};

    #[test]
    fn a_layer_norm_is_that_of_what_differs_from_the_mean() {
        for (rows, c) in [(1, 1), (3, 5), (7, 16), (900, 100)] {
            let (x, w, b) = (noise(rows * c, 1), noise(c, 2), noise(c, 3));
            let x: Vec<f32> = x.iter().map(|x| x + 3.0).collect();
            let centred = x.chunks_exact(c).flat_map(|row| {
                let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / c as f64;
                row.iter().map(move |x| (f64::from(*x) - mean) as f32)
            });
            let centred: Vec<f32> = centred.collect();
            let mut y = vec![f32::NAN; x.len()];
            layer_forward(&x, &w, Some(&b), 1e-5, &mut y);
            assert_close(&y, &reference::rms_norm(&centred, &w, &b, 1e-5), 1e-5);
            layer_forward(&x, &w, None, 1e-5, &mut y);
            let none = vec![0.0; c];
            assert_close(&y, &reference::rms_norm(&centred, &w, &none, 1e-5), 1e-5);
        }
    }

    #[test]
    fn forward_and_gradients_match() {
        for (rows, c) in [(1, 1), (3, 5), (7, 16), (5, 100)] {
            let (x, w) = (noise(rows * c, 1), noise(c, 2));
            let (b, dy) = (noise(c, 3), noise(rows * c, 4));
            let mut y = vec![0.0; x.len()];
            rms_forward(&x, &w, Some(&b), 1e-5, &mut y);
            assert_close(&y, &reference::rms_norm(&x, &w, &b, 1e-5), 1e-5);
            let mut dx = vec![0.0; x.len()];
            let (dw, db) = rms_backward(&x, &w, 1e-5, &dy, &mut dx);
            let loss = |x: &[f32], w: &[f32], b: &[f32]| {
                reference::dot(&reference::rms_norm(x, w, b, 1e-5), &dy)
            };
            assert_gradient(&x, &dx, |v| loss(v, &w, &b));
            assert_gradient(&w, &dw, |v| loss(&x, v, &b));
            assert_gradient(&b, &db, |v| loss(&x, &w, v));
        }
    }
}
