//! Softmax attention over `[batch, tokens, heads·dim]` operands, with grouped key-value heads,
//! logit soft-capping, causal and sliding-window masks, and a number of valid keys per row.

use super::packed::{self, Ends, PackedKeyValues};
use crate::gemm::{Threads, View, multiply};
use crate::parallel::{Work, each};
use crate::pointwise::logits::maximum;
use crate::pointwise::math;
use crate::pointwise::norm::lane_sum;
use crate::simd::simd_dispatch;
use rayon::prelude::*;

/// Sizes and masks of an attention.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Rows of the batch.
    pub batch: usize,
    /// Queries a row.
    pub queries: usize,
    /// Keys a row.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub key_value_heads: usize,
    /// Channels a head.
    pub dim: usize,
    /// Factor of the products, usually 1/√dim.
    pub scale: f32,
    /// `cap·tanh(s/cap)` on the scaled products.
    pub softcap: Option<f32>,
    /// Query `i` sees keys up to `i + offset`.
    pub causal_offset: Option<usize>,
    /// With a causal mask: how many keys a query sees at most, itself included.
    pub window: Option<usize>,
    /// Visible keys: `key_mask[b][j]`; no mask means all.
    pub key_mask: Option<Vec<Vec<bool>>>,
}

/// Queries that share one block of scores.
const BLOCK: usize = 64;
/// Queries of a row from which on packing its keys and values repays.
const PACKED_QUERIES: usize = 32;

impl AttentionShape {
    fn query_width(&self) -> usize {
        self.heads * self.dim
    }

    fn key_width(&self) -> usize {
        self.key_value_heads * self.dim
    }

    /// How many keys every query of a row sees, where these are the first ones and nothing else is
    /// done to their products.
    fn seen_prefixes(&self) -> Option<Vec<usize>> {
        if self.softcap.is_some() || self.causal_offset.is_some() {
            return None;
        }
        let Some(mask) = &self.key_mask else {
            return Some(vec![self.keys; self.batch]);
        };
        let seen = |row: &Vec<bool>| {
            let count = row.iter().take_while(|seen| **seen).count();
            row[count..].iter().all(|seen| !seen).then_some(count)
        };
        mask.iter().map(seen).collect()
    }

    fn check(&self, q: usize, k: usize, v: usize) {
        assert!(
            self.key_value_heads > 0 && self.heads.is_multiple_of(self.key_value_heads),
            "{} heads over {} key-value heads",
            self.heads,
            self.key_value_heads
        );
        assert_eq!(
            q,
            self.batch * self.queries * self.query_width(),
            "queries of an attention"
        );
        let keys = self.batch * self.keys * self.key_width();
        assert!(
            k == keys && v == keys,
            "keys {k} and values {v} of an attention, want {keys}"
        );
        if let Some(mask) = &self.key_mask {
            assert!(
                mask.len() == self.batch && mask.iter().all(|m| m.len() == self.keys),
                "key mask must be {} rows of {}",
                self.batch,
                self.keys
            );
        }
    }

    fn query(&self, b: usize, n: usize, h: usize) -> usize {
        (b * self.queries + n) * self.query_width() + h * self.dim
    }

    fn key(&self, b: usize, n: usize, h: usize) -> usize {
        (b * self.keys + n) * self.key_width() + h * self.dim
    }

    /// First and one-past-last key that query `n` may see by position.
    fn visible(&self, n: usize) -> std::ops::Range<usize> {
        match self.causal_offset {
            None => 0..self.keys,
            Some(offset) => {
                let end = (n + offset + 1).min(self.keys);
                let start = self
                    .window
                    .map_or(0, |w| (n + offset + 1).saturating_sub(w));
                start.min(end)..end
            }
        }
    }

    fn keys_view<'a>(&self, data: &'a [f32], b: usize, h: usize) -> View<'a> {
        View::strided(
            &data[self.key(b, 0, h)..],
            self.keys,
            self.dim,
            self.key_width(),
            1,
        )
    }

    fn queries_view<'a>(
        &self,
        data: &'a [f32],
        b: usize,
        n: usize,
        count: usize,
        h: usize,
    ) -> View<'a> {
        View::strided(
            &data[self.query(b, n, h)..],
            count,
            self.dim,
            self.query_width(),
            1,
        )
    }

    /// Probabilities of queries `first..first+count` of one head; rows that see nothing are zero.
    /// `slopes` receives the derivative of the soft cap where one is set.
    fn probabilities(
        &self,
        (b, h): (usize, usize),
        (first, count): (usize, usize),
        (q, k): (&[f32], &[f32]),
        scores: &mut [f32],
        mut slopes: Option<&mut [f32]>,
    ) {
        let group = h / (self.heads / self.key_value_heads);
        multiply(
            scores,
            self.keys,
            self.queries_view(q, b, first, count, h),
            self.keys_view(k, b, group).transposed(),
            self.scale,
            false,
            Threads::One,
        );
        let mask = self.key_mask.as_ref().map(|m| m[b].as_slice());
        for (i, row) in scores.chunks_exact_mut(self.keys).enumerate() {
            if let Some(cap) = self.softcap {
                let slope = slopes
                    .as_deref_mut()
                    .map(|s| &mut s[i * self.keys..(i + 1) * self.keys]);
                soft_cap(row, cap);
                if let Some(slope) = slope {
                    for (d, &s) in slope.iter_mut().zip(row.iter()) {
                        *d = 1.0 - (s / cap) * (s / cap);
                    }
                }
            }
            let visible = self.visible(first + i);
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            softmax(&mut row[visible.clone()], mask.map(|m| &m[visible]));
        }
    }
}

simd_dispatch! {
    fn soft_cap(row: &mut [f32], cap: f32) {
        for s in row { *s = cap * math::tanh(*s / cap); }
    }
}

simd_dispatch! {
    fn softmax(row: &mut [f32], mask: Option<&[bool]>) {
        if let Some(mask) = mask {
            for (s, &keep) in row.iter_mut().zip(mask) { if !keep { *s = f32::NEG_INFINITY; } }
        }
        let largest = maximum(row);
        if largest == f32::NEG_INFINITY {
            // Nothing is seen, or what is not a number.
            let is_nan = row.iter().any(|s| s.is_nan());
            row.fill(if is_nan { f32::NAN } else { 0.0 });
            return;
        }
        for s in row.iter_mut() {
            let e = math::exp(*s - largest);
            *s = if *s == f32::NEG_INFINITY { 0.0 } else { e };
        }
        let sum = lane_sum(row.len(), |i| row[i]);
        let inverse = 1.0 / sum;
        for s in row.iter_mut() { *s *= inverse; }
    }
}

simd_dispatch! {
    /// Takes a gradient of probabilities through the softmax that made them.
    fn through_softmax(gradient: &mut [f32], probabilities: &[f32]) {
        let p = &probabilities[..gradient.len()];
        let sum = {
            let d = &*gradient;
            lane_sum(d.len(), |i| d[i] * p[i])
        };
        for (d, p) in gradient.iter_mut().zip(p) { *d = (*d - sum) * p; }
    }
}

/// `o = softmax(scale·q kᵀ) v`, `[batch, queries, heads·dim]`. A query that sees no key gives zero.
pub fn forward(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], o: &mut [f32]) {
    shape.check(q.len(), k.len(), v.len());
    assert_eq!(o.len(), q.len(), "output of an attention");
    if shape.keys == 0 || q.is_empty() {
        o.fill(0.0);
        return;
    }
    let width = shape.query_width();
    if shape.queries >= PACKED_QUERIES
        && let Some(seen) = shape.seen_prefixes()
    {
        let pictures = q
            .chunks_exact(shape.queries * width)
            .zip(o.chunks_exact_mut(shape.queries * width));
        for (b, ((q, o), seen)) in pictures.zip(seen).enumerate() {
            let keys = shape.key(b, 0, 0)..shape.key(b, seen, 0);
            let mut key_values = PackedKeyValues::new(seen, shape.key_value_heads, shape.dim);
            key_values.write(0, &k[keys.clone()], &v[keys]);
            let ends = Ends::Same(seen);
            packed::forward(q, shape.heads, &key_values, ends, shape.scale, o);
        }
        return;
    }
    let blocks = shape.queries.div_ceil(BLOCK);
    // Runs of queries of one batch row: the output rows of a task are contiguous.
    let rows: Vec<(usize, &mut [f32])> = o
        .chunks_exact_mut(shape.queries * width)
        .flat_map(|picture| picture.chunks_mut(BLOCK * width))
        .enumerate()
        .collect();
    let work = Work {
        multiplications: 2 * q.len() * shape.keys,
        bytes: size_of_val(k) + size_of_val(v),
    };
    each(rows, work, |(index, out)| {
        let (b, first) = (index / blocks, index % blocks * BLOCK);
        let count = out.len() / width;
        let mut scores = vec![0.0f32; count * shape.keys];
        for h in 0..shape.heads {
            shape.probabilities((b, h), (first, count), (q, k), &mut scores, None);
            let group = h / (shape.heads / shape.key_value_heads);
            multiply(
                &mut out[h * shape.dim..],
                width,
                View::new(&scores, count, shape.keys),
                shape.keys_view(v, b, group),
                1.0,
                false,
                Threads::One,
            );
        }
    });
}

/// Gradients with respect to q, k and v.
pub fn backward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    shape.check(q.len(), k.len(), v.len());
    assert_eq!(grad.len(), q.len(), "gradient of an attention");
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    if shape.keys == 0 || q.is_empty() {
        return (dq, dk, dv);
    }
    let (queries, keys, dim) = (shape.queries, shape.keys, shape.dim);
    let per_row = dq
        .par_chunks_exact_mut(queries * shape.query_width())
        .zip(dk.par_chunks_exact_mut(keys * shape.key_width()))
        .zip(dv.par_chunks_exact_mut(keys * shape.key_width()));
    per_row.enumerate().for_each(|(b, ((dq, dk), dv))| {
        let mut probabilities = vec![0.0f32; queries * keys];
        let mut scores = vec![0.0f32; queries * keys];
        let mut slopes = vec![
            1.0f32;
            if shape.softcap.is_some() {
                queries * keys
            } else {
                0
            }
        ];
        for h in 0..shape.heads {
            let group = h / (shape.heads / shape.key_value_heads);
            let slope = shape.softcap.map(|_| slopes.as_mut_slice());
            shape.probabilities((b, h), (0, queries), (q, k), &mut probabilities, slope);
            let p = View::new(&probabilities, queries, keys);
            let g = shape.queries_view(grad, b, 0, queries, h);
            let key_width = shape.key_width();
            let at = group * dim;
            multiply(
                &mut dv[at..],
                key_width,
                p.transposed(),
                g,
                1.0,
                true,
                Threads::One,
            );
            let values = shape.keys_view(v, b, group).transposed();
            multiply(&mut scores, keys, g, values, 1.0, false, Threads::One);
            for ((d, p), i) in scores
                .chunks_exact_mut(keys)
                .zip(probabilities.chunks_exact(keys))
                .zip(0..)
            {
                through_softmax(d, p);
                if shape.softcap.is_some() {
                    for (d, s) in d.iter_mut().zip(&slopes[i * keys..]) {
                        *d *= s;
                    }
                }
            }
            let d = View::new(&scores, queries, keys);
            let (k, q) = (
                shape.keys_view(k, b, group),
                shape.queries_view(q, b, 0, queries, h),
            );
            let width = shape.query_width();
            multiply(
                &mut dq[h * dim..],
                width,
                d,
                k,
                shape.scale,
                false,
                Threads::One,
            );
            let d = d.transposed();
            multiply(
                &mut dk[at..],
                key_width,
                d,
                q,
                shape.scale,
                true,
                Threads::One,
            );
        }
    });
    (dq, dk, dv)
}

#[cfg(test)]
mod tests;
