//! Plain statements of the kernels, written for reading. The tests hold the fast ones to these.

use crate::attention::AttentionShape;
use crate::attention::linear::LinearAttentionShape;
use crate::attention::relative::GridShape;
use crate::attention::window::WindowShape;
use crate::conv::ConvShape;
use crate::conv::depthwise::DepthwiseShape;

/// `y = x wᵀ + b`, sums in f64.
pub fn linear(x: &[f32], inputs: usize, w: &[f32], outputs: usize, bias: &[f32]) -> Vec<f32> {
    let row = |x: &[f32]| -> Vec<f32> {
        (0..outputs)
            .map(|o| {
                let w = &w[o * inputs..(o + 1) * inputs];
                let sum: f64 = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum();
                (sum + bias[o] as f64) as f32
            })
            .collect()
    };
    x.chunks_exact(inputs).flat_map(row).collect()
}

/// Calls `visit(input index, weight index, output index)` for every product of a convolution.
fn conv_products(shape: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let (k, oh, ow) = (shape.kernel, shape.out_height(), shape.out_width());
    for b in 0..shape.batch {
        for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            for (ky, kx) in (0..k).flat_map(|y| (0..k).map(move |x| (y, x))) {
                let (y, x) = (oy * shape.stride + ky, ox * shape.stride + kx);
                let inside = y >= shape.padding
                    && x >= shape.padding
                    && y - shape.padding < shape.height
                    && x - shape.padding < shape.width;
                if !inside {
                    continue;
                }
                let (y, x) = (y - shape.padding, x - shape.padding);
                for o in 0..shape.outputs {
                    for i in 0..shape.inputs {
                        visit(
                            ((b * shape.height + y) * shape.width + x) * shape.inputs + i,
                            ((o * k + ky) * k + kx) * shape.inputs + i,
                            ((b * oh + oy) * ow + ox) * shape.outputs + o,
                        );
                    }
                }
            }
        }
    }
}

/// Convolution with OHWI weights.
pub fn conv(shape: &ConvShape, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let pixels = shape.batch * shape.out_height() * shape.out_width();
    let mut y: Vec<f32> = (0..pixels).flat_map(|_| bias.iter().copied()).collect();
    conv_products(shape, |i, f, o| y[o] += x[i] * w[f]);
    y
}

/// Gradients of [`conv`] with respect to input and weight.
pub fn conv_gradients(shape: &ConvShape, x: &[f32], w: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    conv_products(shape, |i, f, o| {
        dx[i] += dy[o] * w[f];
        dw[f] += dy[o] * x[i];
    });
    (dx, dw)
}

fn depthwise_products(shape: &DepthwiseShape, mut visit: impl FnMut(usize, usize, usize)) {
    let (k, c) = (shape.kernel, shape.channels);
    for b in 0..shape.batch {
        for (oy, ox) in (0..shape.height).flat_map(|y| (0..shape.width).map(move |x| (y, x))) {
            for (ky, kx) in (0..k).flat_map(|y| (0..k).map(move |x| (y, x))) {
                let (y, x) = (oy + ky, ox + kx);
                if y < k / 2 || x < k / 2 || y - k / 2 >= shape.height || x - k / 2 >= shape.width {
                    continue;
                }
                for i in 0..c {
                    visit(
                        ((b * shape.height + y - k / 2) * shape.width + x - k / 2) * c + i,
                        (ky * k + kx) * c + i,
                        ((b * shape.height + oy) * shape.width + ox) * c + i,
                    );
                }
            }
        }
    }
}

/// Depthwise convolution with `[kernel², channels]` weights.
pub fn depthwise(shape: &DepthwiseShape, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y: Vec<f32> = (0..x.len()).map(|i| bias[i % shape.channels]).collect();
    depthwise_products(shape, |i, f, o| y[o] += x[i] * w[f]);
    y
}

/// Gradients of [`depthwise`] with respect to input and weight.
pub fn depthwise_gradients(
    shape: &DepthwiseShape,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    depthwise_products(shape, |i, f, o| {
        dx[i] += dy[o] * w[f];
        dw[f] += dy[o] * x[i];
    });
    (dx, dw)
}

/// RMS normalisation of rows as long as the weight.
pub fn rms_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f32> {
    let row = |x: &[f32]| -> Vec<f32> {
        let square: f64 = x.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / x.len() as f64;
        let r = 1.0 / (square + eps).sqrt();
        let pairs = x.iter().zip(weight).zip(bias);
        pairs
            .map(|((x, w), b)| (*x as f64 * r * *w as f64 + *b as f64) as f32)
            .collect()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

/// Layer normalisation with one shift and scale vector a picture.
pub fn layer_norm_modulate(
    x: &[f32],
    tokens: usize,
    channels: usize,
    shift: &[f32],
    scale: &[f32],
    eps: f64,
) -> Vec<f32> {
    let row = |(n, x): (usize, &[f32])| -> Vec<f32> {
        let b = n / tokens * channels;
        let mean = x.iter().map(|&v| v as f64).sum::<f64>() / channels as f64;
        let variance = x.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / channels as f64;
        (0..channels)
            .map(|c| {
                let normal = (x[c] as f64 - mean) / (variance + eps).sqrt();
                (normal * (1.0 + scale[b + c] as f64) + shift[b + c] as f64) as f32
            })
            .collect()
    };
    x.chunks_exact(channels).enumerate().flat_map(row).collect()
}

/// ReLU linear attention as the sum over pairs of tokens.
pub fn linear_attention(shape: &LinearAttentionShape, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let (width, dim) = (shape.heads * shape.dim, shape.dim);
    let mut o = vec![0.0; q.len()];
    for b in 0..shape.batch {
        for h in 0..shape.heads {
            let at = |n: usize| (b * shape.tokens + n) * width + h * dim;
            for n in 0..shape.tokens {
                let (mut sum, mut total) = (vec![0.0f64; dim], 0.0f64);
                for m in 0..shape.tokens {
                    let product: f64 = (0..dim)
                        .map(|c| q[at(n) + c].max(0.0) as f64 * k[at(m) + c].max(0.0) as f64)
                        .sum();
                    total += product;
                    for (c, sum) in sum.iter_mut().enumerate() {
                        *sum += product * v[at(m) + c] as f64;
                    }
                }
                for (c, sum) in sum.iter().enumerate() {
                    o[at(n) + c] = (sum / (total + shape.eps as f64)) as f32;
                }
            }
        }
    }
    o
}

/// Softmax attention, one query at a time.
pub fn attention(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let dim = shape.dim;
    let group = shape.heads / shape.key_value_heads;
    let mut o = vec![0.0; q.len()];
    for b in 0..shape.batch {
        for (n, h) in (0..shape.queries).flat_map(|n| (0..shape.heads).map(move |h| (n, h))) {
            let at = ((b * shape.queries + n) * shape.heads + h) * dim;
            let key = |m: usize| ((b * shape.keys + m) * shape.key_value_heads + h / group) * dim;
            let seen = |m: usize| {
                let last = shape.causal_offset.map_or(usize::MAX, |offset| n + offset);
                let near = shape.window.is_none_or(|w| m + w > last);
                m <= last && near && shape.key_mask.as_ref().is_none_or(|mask| mask[b][m])
            };
            let keys: Vec<usize> = (0..shape.keys).filter(|&m| seen(m)).collect();
            let scores: Vec<f64> = keys
                .iter()
                .map(|&m| {
                    let dot: f64 = (0..dim)
                        .map(|c| q[at + c] as f64 * k[key(m) + c] as f64)
                        .sum();
                    let score = dot * shape.scale as f64;
                    shape
                        .softcap
                        .map_or(score, |cap| cap as f64 * (score / cap as f64).tanh())
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            for (&m, score) in keys.iter().zip(&scores) {
                let p = (score - largest).exp() / total;
                for c in 0..dim {
                    o[at + c] += (p * v[key(m) + c] as f64) as f32;
                }
            }
        }
    }
    o
}

/// Attention on grids with relative positions, from its definition.
pub fn grid_attention(
    shape: &GridShape,
    [q, k, v]: [&[f32]; 3],
    [rows, columns]: [&[f32]; 2],
) -> Vec<f32> {
    let GridShape {
        height,
        width,
        heads,
        dim,
        scale,
    } = *shape;
    let places = height * width;
    let window = WindowShape {
        places,
        heads,
        dim,
        scale,
    };
    added_attention(&window, [q, k, v], |n, h, m| {
        let (i, j) = (n % places / width, n % width);
        let (row, column) = (m / width + height - 1 - i, m % width + width - 1 - j);
        let row = rows[(n * heads + h) * (2 * height - 1) + row];
        let column = columns[(n * heads + h) * (2 * width - 1) + column];
        f64::from(row) + f64::from(column)
    })
}

/// Softmax attention within windows; see [`crate::attention::window`].
pub fn window_attention(shape: &WindowShape, [q, k, v]: [&[f32]; 3], table: &[f32]) -> Vec<f32> {
    let places = shape.places;
    added_attention(shape, [q, k, v], |n, h, m| {
        f64::from(table[(h * places + n % places) * places + m])
    })
}

/// Softmax attention within windows, with what `added` gives for a query, a head and a key of its window.
fn added_attention(
    shape: &WindowShape,
    [q, k, v]: [&[f32]; 3],
    added: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f32> {
    let WindowShape {
        places,
        heads,
        dim,
        scale,
    } = *shape;
    let mut o = vec![0.0; q.len()];
    for (n, h) in (0..q.len() / (heads * dim)).flat_map(|n| (0..heads).map(move |h| (n, h))) {
        let window = n / places;
        let at = |n: usize| (n * heads + h) * dim;
        let scores: Vec<f64> = (0..places)
            .map(|m| {
                let key = at(window * places + m);
                let product = dot(&q[at(n)..][..dim], &k[key..][..dim]) * f64::from(scale);
                product + added(n, h, m)
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        for (m, score) in scores.iter().enumerate() {
            let share = (score - largest).exp() / total;
            for c in 0..dim {
                let value = f64::from(v[at(window * places + m) + c]);
                o[at(n) + c] += (share * value) as f32;
            }
        }
    }
    o
}

/// Σ aᵢ bᵢ in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
}

/// Repeatable values in −1..1 for tests.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 / (1u64 << 30) as f64 - 1.0) as f32
        })
        .collect()
}

/// Fails where |a − b| exceeds `tolerance·(1 + |b|)`.
pub fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "lengths differ");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let ok = (a - b).abs() <= tolerance * (1.0 + b.abs());
        assert!(ok, "value {i}: {a} and {b} differ by more than {tolerance}");
    }
}

/// Compares a gradient with central differences of `loss` at up to 24 places.
pub fn assert_gradient(x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "lengths differ");
    let step = 1e-2f32;
    let mut moved = x.to_vec();
    for i in (0..x.len()).step_by(x.len().div_ceil(24).max(1)) {
        moved[i] = x[i] + step;
        let above = loss(&moved);
        moved[i] = x[i] - step;
        let below = loss(&moved);
        moved[i] = x[i];
        let want = (above - below) / (2.0 * step as f64);
        let got = gradient[i] as f64;
        // The step itself errs by about step²: allow it, and kinks of ReLU are kept away by callers.
        assert!(
            (got - want).abs() < 5e-3 * (1.0 + want.abs()),
            "gradient {i}: {got}, differences give {want}"
        );
    }
}
