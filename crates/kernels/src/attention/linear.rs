//! ReLU linear attention (SANA §3, EfficientViT): with q and k passed through ReLU,
//! `o_n = Σ_m v_m (k_m·q_n) / (Σ_m k_m·q_n + eps)`, computed in one pass over the tokens as
//! `M = Σ v_m k_mᵀ`, `z = Σ k_m`, `o_n = M q_n / (z·q_n + eps)`. No scale, no softmax.
//!
//! All operands are `[batch, tokens, heads·dim]`, heads contiguous.

use crate::gemm::small::{self, Factor};
use crate::parallel;
use crate::pointwise::norm::lane_sum;
use crate::scratch::with_buffer;
use crate::simd::simd_dispatch;
use rayon::prelude::*;

/// Sizes of a linear attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearAttentionShape {
    /// Pictures.
    pub batch: usize,
    /// Tokens a picture.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Channels a head.
    pub dim: usize,
    /// Added to the denominator.
    pub eps: f32,
}

impl LinearAttentionShape {
    fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn check(&self, lengths: &[usize]) {
        let want = self.batch * self.tokens * self.width();
        for &length in lengths {
            assert_eq!(length, want, "operand of {self:?}");
        }
    }
}

/// What [`forward`] keeps of one head: M (`dim` rows of `dim`) and then z.
fn state_len(dim: usize) -> usize {
    dim * dim + dim
}

/// Tokens whose operands are brought together at a time.
const BLOCK: usize = 64;

simd_dispatch! {
    /// Adds tokens, `width` apart, to M and z.
    fn accumulate(k: &[f32], v: &[f32], width: usize, dim: usize, state: &mut [f32], scratch: &mut [f32]) {
        let (m, z) = state.split_at_mut(dim * dim);
        let tokens = k.len().div_ceil(width);
        let (keys, values) = scratch[..2 * tokens * dim].split_at_mut(tokens * dim);
        for (n, (key, value)) in keys.chunks_exact_mut(dim).zip(values.chunks_exact_mut(dim)).enumerate() {
            relu(&k[n * width..][..dim], key);
            value.copy_from_slice(&v[n * width..][..dim]);
            for (sum, key) in z.iter_mut().zip(&*key) { *sum += key; }
        }
        small::add(dim, Factor { values, row: 1, inner: dim }, (keys, tokens, dim), m, dim);
    }
}

/// M transposed, so that applying it runs over contiguous rows.
fn transpose(m: &[f32], dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; dim * dim];
    for i in 0..dim {
        for j in 0..dim {
            out[j * dim + i] = m[i * dim + j];
        }
    }
    out
}

/// Queries of one head that attend together.
struct Queries<'a> {
    /// `width` apart.
    values: &'a [f32],
    width: usize,
    /// M transposed.
    m: &'a [f32],
    z: &'a [f32],
    eps: f32,
}

simd_dispatch! {
    /// Writes the results of queries, `out_width` apart.
    fn apply(queries: &Queries<'_>, out: &mut [f32], out_width: usize, scratch: &mut [f32]) {
        let Queries { values, width, m, z, eps } = *queries;
        let dim = z.len();
        let tokens = values.len().div_ceil(width);
        let positive = &mut scratch[..tokens * dim];
        for (n, query) in positive.chunks_exact_mut(dim).enumerate() {
            relu(&values[n * width..][..dim], query);
            out[n * out_width..][..dim].fill(0.0);
        }
        small::add(tokens, Factor { values: positive, row: dim, inner: 1 }, (m, dim, dim), out, out_width);
        for (query, out) in positive.chunks_exact(dim).zip(out.chunks_mut(out_width)) {
            let inverse = 1.0 / (lane_sum(dim, |j| query[j] * z[j]) + eps);
            for o in &mut out[..dim] { *o *= inverse; }
        }
    }
}

/// Queries, keys and values that are attended by themselves. Each begins at its first channel; heads
/// are `spread·dim` and tokens `spread·heads·dim` apart.
#[derive(Clone, Copy)]
struct Source<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    spread: usize,
}

impl Source<'_> {
    fn at(&self, shape: &LinearAttentionShape, token: usize, head: usize) -> usize {
        self.spread * (token * shape.width() + head * shape.dim)
    }

    /// Adds the tokens of every head of each picture to what [`accumulate`] keeps of it.
    fn add_to(&self, shape: &LinearAttentionShape, states: &mut [Vec<f32>]) {
        let stride = self.spread * shape.width();
        let run = shape
            .heads
            .div_ceil(2 * rayon::current_num_threads())
            .max(1);
        let pictures = states.par_chunks_mut(shape.heads.max(1)).enumerate();
        pictures.for_each(|(b, states)| {
            let runs = states.par_chunks_mut(run).enumerate();
            runs.for_each(|(index, states)| {
                with_buffer(2 * BLOCK * shape.dim, |scratch| {
                    // Tokens in blocks, so that heads that share a page meet it while it is near.
                    for first in (0..shape.tokens).step_by(BLOCK) {
                        let last = (first + BLOCK).min(shape.tokens) - 1;
                        let (first, last) = (b * shape.tokens + first, b * shape.tokens + last);
                        for (h, state) in (index * run..).zip(&mut *states) {
                            let tokens =
                                self.at(shape, first, h)..self.at(shape, last, h) + shape.dim;
                            let (k, v) = (&self.k[tokens.clone()], &self.v[tokens]);
                            accumulate(k, v, stride, shape.dim, state, scratch);
                        }
                    }
                });
            });
        });
    }

    /// What [`accumulate`] gives for each head of each picture.
    fn states(&self, shape: &LinearAttentionShape) -> Vec<Vec<f32>> {
        let mut states = vec![vec![0.0; state_len(shape.dim)]; shape.batch * shape.heads];
        self.add_to(shape, &mut states);
        states
    }
}

/// `o = attention(q, k, v)`. A query whose products are all zero gives zero.
pub fn forward(shape: &LinearAttentionShape, q: &[f32], k: &[f32], v: &[f32], o: &mut [f32]) {
    shape.check(&[q.len(), k.len(), v.len(), o.len()]);
    let source = Source { q, k, v, spread: 1 };
    let states = source.states(shape);
    attend(shape, &[source], &[states], o);
}

/// What [`forward_interleaved`] keeps of the keys and values of all tokens. A map whose tokens come in
/// strips adds one after the other, from the first to the last, and gives what it gives as a whole.
#[derive(Clone, Debug)]
pub struct InterleavedStates {
    /// Source by source, then picture by picture and head by head.
    states: Vec<Vec<Vec<f32>>>,
}

impl InterleavedStates {
    /// Of no tokens.
    pub fn new(sources: usize, shape: &LinearAttentionShape) -> Self {
        let state = vec![0.0; state_len(shape.dim)];
        Self {
            states: vec![vec![state; shape.batch * shape.heads]; sources],
        }
    }

    /// Adds tokens of one picture: every source is `[tokens, heads·3·dim]`.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn add(&mut self, shape: &LinearAttentionShape, picture: usize, sources: &[&[f32]]) {
        let one = LinearAttentionShape { batch: 1, ..*shape };
        assert_eq!(sources.len(), self.states.len(), "sources of {shape:?}");
        for (source, states) in interleaved(&one, sources).into_iter().zip(&mut self.states) {
            source.add_to(&one, &mut states[picture * shape.heads..][..shape.heads]);
        }
    }
}

/// As [`forward`] of operands that stand side by side, head by head: every source is
/// `[batch, tokens, heads·3·dim]` with a head's query, key and value after each other. Each source is
/// attended by itself; token n of `o` is the concatenation of what they give, `[sources·heads·dim]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn forward_interleaved(shape: &LinearAttentionShape, sources: &[&[f32]], o: &mut [f32]) {
    let states: Vec<_> = interleaved(shape, sources)
        .iter()
        .map(|source| source.states(shape))
        .collect();
    attend_interleaved(shape, sources, &InterleavedStates { states }, o);
}

/// As [`forward_interleaved`] where the keys and values of all tokens are known already; the sources
/// hold some of the tokens.
///
/// # Panics
/// When the lengths do not fit.
pub fn attend_interleaved(
    shape: &LinearAttentionShape,
    sources: &[&[f32]],
    states: &InterleavedStates,
    o: &mut [f32],
) {
    assert_eq!(
        o.len(),
        shape.batch * shape.tokens * sources.len() * shape.width(),
        "result of {shape:?}"
    );
    assert_eq!(sources.len(), states.states.len(), "sources of {shape:?}");
    attend(shape, &interleaved(shape, sources), &states.states, o);
}

fn interleaved<'a>(shape: &LinearAttentionShape, sources: &[&'a [f32]]) -> Vec<Source<'a>> {
    let (width, dim) = (shape.width(), shape.dim);
    let tokens = shape.batch * shape.tokens;
    for source in sources {
        assert_eq!(source.len(), tokens * 3 * width, "source of {shape:?}");
    }
    sources
        .iter()
        .map(|source| Source {
            q: source,
            k: source.get(dim..).unwrap_or_default(),
            v: source.get(2 * dim..).unwrap_or_default(),
            spread: 3,
        })
        .collect()
}

fn attend(
    shape: &LinearAttentionShape,
    sources: &[Source],
    states: &[Vec<Vec<f32>>],
    o: &mut [f32],
) {
    let (wide, dim) = (sources.len() * shape.width(), shape.dim);
    // M transposed, as `apply` takes it, and z: source by source, picture by picture, head by head.
    let states: Vec<(Vec<f32>, &[f32])> = states
        .iter()
        .flatten()
        .map(|state| {
            let (m, z) = state.split_at(dim * dim);
            (transpose(m, dim), z)
        })
        .collect();
    parallel::rows_mut(o, wide, |first, chunk| {
        with_buffer(BLOCK * dim, |scratch| {
            let (mut first, mut rest) = (first, chunk);
            while !rest.is_empty() {
                // Tokens of one picture.
                let left = shape.tokens - first % shape.tokens;
                let count = BLOCK.min(rest.len() / wide).min(left);
                let (block, later) = rest.split_at_mut(count * wide);
                for index in 0..wide / dim {
                    let (source, h) = (index / shape.heads, index % shape.heads);
                    let picture = source * shape.batch + first / shape.tokens;
                    let (m, z) = &states[picture * shape.heads + h];
                    let source = &sources[source];
                    let end = source.at(shape, first + count - 1, h) + dim;
                    let queries = Queries {
                        values: &source.q[source.at(shape, first, h)..end],
                        width: source.spread * shape.width(),
                        m,
                        z,
                        eps: shape.eps,
                    };
                    apply(&queries, &mut block[index * dim..], wide, scratch);
                }
                (first, rest) = (first + count, later);
            }
        });
    });
}

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

#[inline(always)]
fn relu(values: &[f32], out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        // Written so that NaN stays.
        *out = if value < 0.0 { 0.0 } else { value };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, assert_gradient, noise};

    #[test]
    fn forward_and_gradients_match() {
        for (batch, tokens, heads, dim) in [(1, 1, 1, 4), (2, 5, 3, 8), (1, 40, 2, 32)] {
            let shape = LinearAttentionShape {
                batch,
                tokens,
                heads,
                dim,
                eps: 1e-15,
            };
            let n = batch * tokens * heads * dim;
            // Shifted so that few products vanish and the quotient is smooth.
            let positive = |seed| noise(n, seed).iter().map(|v| v + 0.4).collect::<Vec<f32>>();
            let (q, k, v, dy) = (positive(1), positive(2), noise(n, 3), noise(n, 4));
            let mut o = vec![0.0; n];
            forward(&shape, &q, &k, &v, &mut o);
            assert_close(&o, &reference::linear_attention(&shape, &q, &k, &v), 1e-4);
            let (dq, dk, dv) = backward(&shape, &q, &k, &v, &dy);
            let loss = |q: &[f32], k: &[f32], v: &[f32]| {
                reference::dot(&reference::linear_attention(&shape, q, k, v), &dy)
            };
            assert_gradient(&q, &dq, |x| loss(x, &k, &v));
            assert_gradient(&k, &dk, |x| loss(&q, x, &v));
            assert_gradient(&v, &dv, |x| loss(&q, &k, x));
        }
    }

    #[test]
    fn interleaved_operands_equal_separate_ones() {
        for (batch, tokens, heads, dim) in [(1, 1, 1, 1), (2, 7, 3, 5), (1, 40, 2, 32)] {
            let shape = LinearAttentionShape {
                batch,
                tokens,
                heads,
                dim,
                eps: 1e-15,
            };
            let width = heads * dim;
            let count = batch * tokens;
            let sources = [noise(3 * count * width, 1), noise(3 * count * width, 2)];
            let mut o = vec![f32::NAN; 2 * count * width];
            forward_interleaved(&shape, &[&sources[0], &sources[1]], &mut o);
            for (index, source) in sources.iter().enumerate() {
                let part = |part: usize| -> Vec<f32> {
                    let pieces = source.chunks_exact(dim).skip(part).step_by(3);
                    pieces.flatten().copied().collect()
                };
                let mut want = vec![0.0; count * width];
                forward(&shape, &part(0), &part(1), &part(2), &mut want);
                let found: Vec<f32> = o
                    .chunks_exact(width)
                    .skip(index)
                    .step_by(2)
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(found, want);
            }

            // In strips of the tokens of one picture after the other.
            let slice = |source: usize, b: usize, tokens_of: std::ops::Range<usize>| {
                let at = |token: usize| 3 * (b * tokens + token) * width;
                &sources[source][at(tokens_of.start)..at(tokens_of.end)]
            };
            let mut states = InterleavedStates::new(2, &shape);
            for b in 0..batch {
                for first in (0..tokens).step_by(3) {
                    let strip = first..(first + 3).min(tokens);
                    let part = LinearAttentionShape {
                        tokens: strip.len(),
                        ..shape
                    };
                    states.add(&part, b, &[slice(0, b, strip.clone()), slice(1, b, strip)]);
                }
            }
            let mut strips = vec![f32::NAN; o.len()];
            attend_interleaved(&shape, &[&sources[0], &sources[1]], &states, &mut strips);
            assert_eq!(strips, o);
        }
    }

    #[test]
    fn query_without_positive_channel_gives_zero() {
        let shape = LinearAttentionShape {
            batch: 1,
            tokens: 2,
            heads: 1,
            dim: 4,
            eps: 1e-15,
        };
        let mut o = vec![9.0; 8];
        forward(&shape, &[-1.0; 8], &[1.0; 8], &[3.0; 8], &mut o);
        assert_eq!(o, [0.0; 8]);
    }
}
