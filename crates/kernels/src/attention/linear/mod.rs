//! ReLU linear attention (SANA §3, EfficientViT): with q and k passed through ReLU,
//! `o_n = Σ_m v_m (k_m·q_n) / (Σ_m k_m·q_n + eps)`, computed in one pass over the tokens as
//! `M = Σ v_m k_mᵀ`, `z = Σ k_m`, `o_n = M q_n / (z·q_n + eps)`. No scale, no softmax.
//!
//! All operands are `[batch, tokens, heads·dim]`, heads contiguous.

mod backward;

pub use backward::backward;

use crate::gemm::small::{self, Factor};
use crate::parallel::{self, Work, each};
use crate::pointwise::norm::lane_sum;
use crate::scratch::with_buffer;
use crate::simd::simd_dispatch;

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
        let pictures = states.chunks_mut(shape.heads.max(1)).enumerate();
        let tasks: Vec<(usize, usize, &mut [Vec<f32>])> = pictures
            .flat_map(|(b, states)| {
                let runs = states.chunks_mut(run).enumerate();
                runs.map(move |(index, states)| (b, index, states))
            })
            .collect();
        let work = Work {
            multiplications: shape.batch * shape.tokens * shape.width() * shape.dim,
            bytes: 2 * size_of::<f32>() * shape.batch * shape.tokens * shape.width(),
        };
        each(tasks, work, |(b, index, states)| {
            with_buffer(2 * BLOCK * shape.dim, |scratch| {
                // Tokens in blocks, so that heads that share a page meet it while it is near.
                for first in (0..shape.tokens).step_by(BLOCK) {
                    let last = (first + BLOCK).min(shape.tokens) - 1;
                    let (first, last) = (b * shape.tokens + first, b * shape.tokens + last);
                    for (h, state) in (index * run..).zip(&mut *states) {
                        let tokens = self.at(shape, first, h)..self.at(shape, last, h) + shape.dim;
                        let (k, v) = (&self.k[tokens.clone()], &self.v[tokens]);
                        accumulate(k, v, stride, shape.dim, state, scratch);
                    }
                }
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

#[inline(always)]
fn relu(values: &[f32], out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        // Written so that NaN stays.
        *out = if value < 0.0 { 0.0 } else { value };
    }
}

#[cfg(test)]
mod tests;
