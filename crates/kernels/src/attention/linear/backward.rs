//! Gradients of linear attention: M and z of a head, and what they would have had to be, go through the
//! tokens once each.

use super::{LinearAttentionShape, Source, relu, transpose};
use crate::parallel;
use crate::pointwise::norm::lane_sum;
use crate::simd::simd_dispatch;
use rayon::prelude::*;

/// One head of one picture: operands that begin at its first channel, `width` apart from token to token.
struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    grad: &'a [f32],
    /// What [`accumulate`] gave.
    state: &'a [f32],
    tokens: usize,
    width: usize,
    dim: usize,
    eps: f32,
}

simd_dispatch! {
    /// Gradients of one head, `[tokens, dim]` each, which come in as zeros.
    fn head_backward(head: &Head<'_>, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
        let dim = head.dim;
        let at = |n: usize| n * head.width..n * head.width + dim;
        let (m, z) = head.state.split_at(dim * dim);
        let columns = transpose(m, dim);
        let (mut dm, mut dz) = (vec![0.0f32; dim * dim], vec![0.0f32; dim]);
        let [mut numerator, mut dnumerator, mut positive] = [(); 3].map(|()| vec![0.0f32; dim]);
        for n in 0..head.tokens {
            let (q, grad) = (&head.q[at(n)], &head.grad[at(n)]);
            relu(q, &mut positive);
            let denominator = lane_sum(dim, |j| positive[j] * z[j]);
            numerator.fill(0.0);
            for (row, &query) in columns.chunks_exact(dim).zip(&positive) { add_scaled(&mut numerator, query, row); }
            let inverse = 1.0 / (denominator + head.eps);
            let mut ddenominator = 0.0;
            for ((d, &g), &numerator) in dnumerator.iter_mut().zip(grad).zip(&numerator) {
                *d = g * inverse;
                ddenominator -= *d * numerator * inverse;
            }
            let dq = &mut dq[n * dim..(n + 1) * dim];
            for ((row, drow), &d) in m.chunks_exact(dim).zip(dm.chunks_exact_mut(dim)).zip(&dnumerator) {
                add_scaled(dq, d, row);
                add_scaled(drow, d, &positive);
            }
            add_scaled(dq, ddenominator, z);
            add_scaled(&mut dz, ddenominator, &positive);
            mask(dq, q);
        }
        let dcolumns = transpose(&dm, dim);
        for n in 0..head.tokens {
            let (k, v) = (&head.k[at(n)], &head.v[at(n)]);
            relu(k, &mut positive);
            let dk = &mut dk[n * dim..(n + 1) * dim];
            dk.copy_from_slice(&dz);
            for (row, &value) in dm.chunks_exact(dim).zip(v) { add_scaled(dk, value, row); }
            mask(dk, k);
            let dv = &mut dv[n * dim..(n + 1) * dim];
            for (column, &key) in dcolumns.chunks_exact(dim).zip(&positive) { add_scaled(dv, key, column); }
        }
    }
}

#[inline(always)]
fn add_scaled(sum: &mut [f32], factor: f32, values: &[f32]) {
    for (sum, &value) in sum.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// The gradient of ReLU at `values`.
#[inline(always)]
fn mask(gradient: &mut [f32], values: &[f32]) {
    for (gradient, &value) in gradient.iter_mut().zip(values) {
        *gradient = if value > 0.0 { *gradient } else { 0.0 };
    }
}

/// Gradients with respect to q, k and v.
pub fn backward(
    shape: &LinearAttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    shape.check(&[q.len(), k.len(), v.len(), grad.len()]);
    let (width, dim, tokens) = (shape.width(), shape.dim, shape.tokens);
    let per_head: Vec<[Vec<f32>; 3]> = Source { q, k, v, spread: 1 }
        .states(shape)
        .into_par_iter()
        .enumerate()
        .map(|(index, state)| {
            let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0f32; tokens * dim]);
            let (b, h) = (index / shape.heads, index % shape.heads);
            let from = b * tokens * width + h * dim;
            if tokens > 0 {
                let head = Head {
                    q: &q[from..],
                    k: &k[from..],
                    v: &v[from..],
                    grad: &grad[from..],
                    state: &state,
                    tokens,
                    width,
                    dim,
                    eps: shape.eps,
                };
                head_backward(&head, &mut dq, &mut dk, &mut dv);
            }
            [dq, dk, dv]
        })
        .collect();
    let assemble = |which: usize| {
        let mut out = vec![0.0; q.len()];
        parallel::rows_mut(&mut out, width, |first, chunk| {
            for (offset, row) in chunk.chunks_exact_mut(width).enumerate() {
                let (b, n) = ((first + offset) / tokens, (first + offset) % tokens);
                for (h, out) in row.chunks_exact_mut(dim).enumerate() {
                    let head = &per_head[b * shape.heads + h][which];
                    out.copy_from_slice(&head[n * dim..(n + 1) * dim]);
                }
            }
        });
        out
    };
    (assemble(0), assemble(1), assemble(2))
}
