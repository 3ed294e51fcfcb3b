//! Adaptive layer normalisation and gated residuals, as diffusion transformers use them:
//! one shift, scale and gate vector a picture, applied to all of its tokens.

use super::norm::lane_sum;
use crate::parallel;
use crate::simd::simd_dispatch;

simd_dispatch! {
    fn rows_forward(x: &[f32], shift: &[f32], scale: &[f32], eps: f32, y: &mut [f32]) {
        let c = shift.len();
        let scale = &scale[..c];
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let (mean, r) = statistics(x, eps);
            for i in 0..c { y[i] = (x[i] - mean) * r * (1.0 + scale[i]) + shift[i]; }
        }
    }
}

#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let c = x.len();
    let mean = lane_sum(c, |i| x[i]) / c as f32;
    let variance = lane_sum(c, |i| (x[i] - mean) * (x[i] - mean)) / c as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `y = (x − mean)/sqrt(variance + eps) · (1 + scale) + shift`; `x` is `[batch, tokens, channels]`,
/// shift and scale are `[batch, channels]`.
pub fn layer_norm(
    x: &[f32],
    tokens: usize,
    channels: usize,
    shift: &[f32],
    scale: &[f32],
    eps: f32,
    y: &mut [f32],
) {
    check(x.len(), tokens, channels, shift.len());
    assert!(
        scale.len() == shift.len() && y.len() == x.len(),
        "lengths of a modulated norm"
    );
    parallel::rows_mut(y, channels, |first, chunk| {
        for (offset, y) in chunk.chunks_exact_mut(channels).enumerate() {
            let row = first + offset;
            let b = row / tokens * channels;
            let x = &x[row * channels..(row + 1) * channels];
            rows_forward(x, &shift[b..b + channels], &scale[b..b + channels], eps, y);
        }
    });
}

fn check(x: usize, tokens: usize, channels: usize, vectors: usize) {
    assert!(
        tokens > 0 && channels > 0 && x == vectors * tokens && vectors.is_multiple_of(channels),
        "{x} values are not {vectors} times {tokens} tokens of {channels} channels"
    );
}

simd_dispatch! {
    fn row_backward(x: &[f32], scale: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let c = x.len();
        let (scale, dy, dx) = (&scale[..c], &dy[..c], &mut dx[..c]);
        let (mean, r) = statistics(x, eps);
        let sum = lane_sum(c, |i| dy[i] * (1.0 + scale[i])) / c as f32;
        let dot = lane_sum(c, |i| dy[i] * (1.0 + scale[i]) * (x[i] - mean) * r) / c as f32;
        for i in 0..c {
            let normalised = (x[i] - mean) * r;
            dx[i] = r * (dy[i] * (1.0 + scale[i]) - sum - normalised * dot);
        }
    }
}
simd_dispatch! {
    fn row_vectors(x: &[f32], eps: f32, dy: &[f32], dshift: &mut [f32], dscale: &mut [f32]) {
        let c = x.len();
        let (dy, dshift, dscale) = (&dy[..c], &mut dshift[..c], &mut dscale[..c]);
        let (mean, r) = statistics(x, eps);
        for i in 0..c {
            dshift[i] += dy[i];
            dscale[i] += dy[i] * (x[i] - mean) * r;
        }
    }
}

/// Gradients of [`layer_norm`] with respect to x, shift and scale.
pub fn layer_norm_backward(
    x: &[f32],
    tokens: usize,
    channels: usize,
    scale: &[f32],
    eps: f32,
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    check(x.len(), tokens, channels, scale.len());
    let mut dx = vec![0.0; x.len()];
    parallel::rows_mut(&mut dx, channels, |first, chunk| {
        for (offset, dx) in chunk.chunks_exact_mut(channels).enumerate() {
            let row = first + offset;
            let b = row / tokens * channels;
            let range = row * channels..(row + 1) * channels;
            row_backward(
                &x[range.clone()],
                &scale[b..b + channels],
                eps,
                &dy[range],
                dx,
            );
        }
    });
    // Shift and scale gradients of one picture share its tokens: computed side by side.
    let mut vectors = vec![0.0; 2 * scale.len()];
    parallel::rows_mut(&mut vectors, 2 * channels, |first, chunk| {
        for (offset, sums) in chunk.chunks_exact_mut(2 * channels).enumerate() {
            let (dshift, dscale) = sums.split_at_mut(channels);
            let start = (first + offset) * tokens;
            for row in start..start + tokens {
                let range = row * channels..(row + 1) * channels;
                row_vectors(&x[range.clone()], eps, &dy[range], dshift, dscale);
            }
        }
    });
    let (mut dshift, mut dscale) = (
        Vec::with_capacity(scale.len()),
        Vec::with_capacity(scale.len()),
    );
    for pair in vectors.chunks_exact(2 * channels) {
        dshift.extend_from_slice(&pair[..channels]);
        dscale.extend_from_slice(&pair[channels..]);
    }
    (dx, dshift, dscale)
}

simd_dispatch! {
    fn gate_row(x: &[f32], gate: &[f32], branch: &[f32], y: &mut [f32]) {
        for (((y, &x), &g), &b) in y.iter_mut().zip(x).zip(gate).zip(branch) { *y = x + g * b; }
    }
}
simd_dispatch! {
    fn multiply_row(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) { *y = a * b; }
    }
}
simd_dispatch! {
    fn multiply_add_row(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) { *y += a * b; }
    }
}

/// `y = x + gate·branch`; the gate is `[batch, channels]`.
pub fn gate_residual(
    x: &[f32],
    tokens: usize,
    channels: usize,
    gate: &[f32],
    branch: &[f32],
    y: &mut [f32],
) {
    check(x.len(), tokens, channels, gate.len());
    assert!(
        branch.len() == x.len() && y.len() == x.len(),
        "lengths of a gated residual"
    );
    parallel::rows_mut(y, channels, |first, chunk| {
        for (offset, y) in chunk.chunks_exact_mut(channels).enumerate() {
            let row = first + offset;
            let b = row / tokens * channels;
            let range = row * channels..(row + 1) * channels;
            gate_row(&x[range.clone()], &gate[b..b + channels], &branch[range], y);
        }
    });
}

/// Gradients of [`gate_residual`] with respect to gate and branch; that of `x` is `dy` itself.
pub fn gate_residual_backward(
    tokens: usize,
    channels: usize,
    gate: &[f32],
    branch: &[f32],
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    check(branch.len(), tokens, channels, gate.len());
    let mut dbranch = vec![0.0; branch.len()];
    parallel::rows_mut(&mut dbranch, channels, |first, chunk| {
        for (offset, d) in chunk.chunks_exact_mut(channels).enumerate() {
            let row = first + offset;
            let b = row / tokens * channels;
            multiply_row(&dy[row * channels..], &gate[b..b + channels], d);
        }
    });
    let mut dgate = vec![0.0; gate.len()];
    parallel::rows_mut(&mut dgate, channels, |first, chunk| {
        for (offset, d) in chunk.chunks_exact_mut(channels).enumerate() {
            let start = (first + offset) * tokens;
            for row in start..start + tokens {
                let range = row * channels..(row + 1) * channels;
                multiply_add_row(&dy[range.clone()], &branch[range], d);
            }
        }
    });
    (dgate, dbranch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, assert_gradient, noise};

    #[test]
    fn layer_norm_and_gradients_match() {
        for (batch, tokens, c) in [(1, 1, 2), (2, 3, 5), (3, 4, 48)] {
            let x = noise(batch * tokens * c, 1);
            let (shift, scale) = (noise(batch * c, 2), noise(batch * c, 3));
            let dy = noise(x.len(), 4);
            let mut y = vec![0.0; x.len()];
            layer_norm(&x, tokens, c, &shift, &scale, 1e-6, &mut y);
            let plain = |x: &[f32], shift: &[f32], scale: &[f32]| {
                reference::layer_norm_modulate(x, tokens, c, shift, scale, 1e-6)
            };
            assert_close(&y, &plain(&x, &shift, &scale), 1e-5);
            let (dx, dshift, dscale) = layer_norm_backward(&x, tokens, c, &scale, 1e-6, &dy);
            if c > 2 {
                assert_gradient(&x, &dx, |v| reference::dot(&plain(v, &shift, &scale), &dy));
            }
            assert_gradient(&shift, &dshift, |v| {
                reference::dot(&plain(&x, v, &scale), &dy)
            });
            assert_gradient(&scale, &dscale, |v| {
                reference::dot(&plain(&x, &shift, v), &dy)
            });
        }
    }

    #[test]
    fn gate_and_gradients_match() {
        let (batch, tokens, c) = (2, 3, 17);
        let (x, branch) = (noise(batch * tokens * c, 1), noise(batch * tokens * c, 2));
        let (gate, dy) = (noise(batch * c, 3), noise(x.len(), 4));
        let plain = |gate: &[f32], branch: &[f32]| -> Vec<f32> {
            (0..x.len())
                .map(|i| x[i] + gate[i / (tokens * c) * c + i % c] * branch[i])
                .collect()
        };
        let mut y = vec![0.0; x.len()];
        gate_residual(&x, tokens, c, &gate, &branch, &mut y);
        assert_close(&y, &plain(&gate, &branch), 1e-6);
        let (dgate, dbranch) = gate_residual_backward(tokens, c, &gate, &branch, &dy);
        assert_gradient(&gate, &dgate, |v| reference::dot(&plain(v, &branch), &dy));
        assert_gradient(&branch, &dbranch, |v| reference::dot(&plain(&gate, v), &dy));
    }
}
