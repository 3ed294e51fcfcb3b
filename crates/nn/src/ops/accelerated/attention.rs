//! Attentions.

use brisk_kernels::attention::AttentionShape;
use brisk_kernels::linear_attention::LinearAttentionShape;
use candle_core::{D, Device, Result, Tensor};

use super::kept::kept;
use super::products::{across, down, down_each, sum_across, sum_down_each};
use super::{Statement, relu};

/// Channels up to which heads stay side by side in a linear attention: the states then are those of all pairs of
/// channels, of which other heads' are left out.
const WIDTH: usize = 512;
/// Keys of all heads up to which heads stay side by side in a softmax attention.
const KEYS: usize = 1024;

/// `[batch, tokens, heads·dim]` to `[batch, heads, tokens, dim]`.
fn by_head(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    x.reshape((batch, tokens, heads, width / heads))?
        .transpose(1, 2)?
        .contiguous()
}

/// Back again.
fn joined(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, tokens, dim) = x.dims4()?;
    x.transpose(1, 2)?
        .contiguous()?
        .reshape((batch, tokens, heads * dim))
}

/// One where row and column are of one head, `[heads·rows, heads·columns]`.
pub(super) fn same_head(
    heads: usize,
    rows: usize,
    columns: usize,
    device: &Device,
) -> Result<Tensor> {
    kept("same_head", [heads, rows, columns], device, || {
        let width = heads * columns;
        let flags: Vec<f32> = (0..heads * rows * width)
            .map(|at| f32::from(u8::from(at / width / rows == at % width / columns)))
            .collect();
        Tensor::from_vec(flags, (heads * rows, width), device)
    })
}

/// A matrix so many times, `[batch, rows, columns]`.
fn each(x: &Tensor, batch: usize) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    down(&x.reshape(rows * columns)?, batch)?.reshape((batch, rows, columns))
}

/// [`crate::ops::linear_attention`]: queries, keys and values.
pub(in crate::ops) struct LinearAttention(pub LinearAttentionShape);

impl Statement for LinearAttention {
    fn name(&self) -> &'static str {
        "linear_attention"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let LinearAttentionShape {
            batch,
            tokens,
            heads,
            dim,
            eps,
        } = self.0;
        let (width, eps) = (heads * dim, f64::from(eps));
        let (q, k, v) = (relu(&operands[0])?, relu(&operands[1])?, &operands[2]);
        if width > WIDTH {
            let (q, k, v) = (by_head(&q, heads)?, by_head(&k, heads)?, by_head(v, heads)?);
            let states = k.transpose(2, 3)?.contiguous()?.matmul(&v)?;
            let sums = q.broadcast_mul(&k.sum_keepdim(2)?)?;
            let sums = (sums.sum_keepdim(D::Minus1)? + eps)?;
            return joined(&q.matmul(&states)?.broadcast_div(&sums)?);
        }
        let same = same_head(heads, dim, dim, q.device())?;
        let states = (k.transpose(1, 2)?.matmul(v)? * each(&same, batch)?)?;
        let sums = sum_down_each(&k.reshape(((), width))?, tokens)?;
        let sums = (q.reshape(((), width))? * down_each(&sums, tokens)?)?;
        let sums = (sums.matmul(&same)? + eps)?;
        q.matmul(&states)? / sums.reshape((batch, tokens, width))?
    }
}

/// [`crate::ops::attention`]: queries, keys and values.
pub(in crate::ops) struct MaskedAttention(pub AttentionShape);

impl MaskedAttention {
    /// One where a query sees a key, zero elsewhere, `[batch·heads·queries, times·keys]`.
    fn seen(&self, heads: usize, times: usize, device: &Device) -> Result<Option<Tensor>> {
        let shape = &self.0;
        let (queries, keys) = (shape.queries, shape.keys);
        let rows = shape.batch * heads;
        let flag = |seen: bool| f32::from(u8::from(seen));
        let valid = shape.key_mask.as_ref().map(|mask| {
            let flags = mask.iter().flat_map(|row| {
                let row: Vec<f32> = row.iter().map(|seen| flag(*seen)).collect();
                row.repeat(times).repeat(heads)
            });
            let flags = Tensor::from_vec(flags.collect(), (rows, times * keys), device)?;
            down_each(&flags, queries)
        });
        let before = shape.causal_offset.map(|offset| {
            let flags = (0..queries).flat_map(|query| {
                let end = offset + query + 1;
                let start = shape.window.map_or(0, |window| end.saturating_sub(window));
                let row: Vec<f32> = (0..keys)
                    .map(|key| flag((start..end).contains(&key)))
                    .collect();
                row.repeat(times)
            });
            let flags = Tensor::from_vec(flags.collect(), queries * times * keys, device)?;
            down(&flags, rows)?.reshape((rows * queries, times * keys))
        });
        match (valid.transpose()?, before.transpose()?) {
            (Some(valid), Some(before)) => Ok(Some((valid * before)?)),
            (valid, before) => Ok(valid.or(before)),
        }
    }

    /// What every row of products `[rows, keys]` weighs its keys by.
    fn weights(&self, products: &Tensor, seen: Option<Tensor>) -> Result<Tensor> {
        let mut scores = (products * f64::from(self.0.scale))?;
        if let Some(cap) = self.0.softcap {
            let cap = f64::from(cap);
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        let (seen, keys) = (
            seen.map(|seen| seen.reshape(scores.shape())),
            scores.dim(1)?,
        );
        let seen = seen.transpose()?;
        if let Some(seen) = &seen {
            // 0 where it is seen, far below every score elsewhere.
            scores = (scores + ((seen - 1.0)? * 1e30)?)?;
        }
        let largest = scores.detach().max_keepdim(D::Minus1)?;
        let mut powers = (scores - across(&largest, keys)?)?.exp()?;
        if let Some(seen) = &seen {
            powers = (powers * seen)?;
        }
        // A query that sees no key gives zero; the sum is at least one where it sees any.
        let sums = (sum_across(&powers)? + 1e-12)?;
        powers / across(&sums, keys)?
    }
}

impl Statement for MaskedAttention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let AttentionShape {
            batch,
            queries,
            keys,
            heads,
            key_value_heads,
            dim,
            ..
        } = self.0;
        let device = operands[0].device();
        if heads == key_value_heads && heads * keys <= KEYS {
            let same = each(&same_head(heads, keys, dim, device)?, batch)?;
            let apart = |x: &Tensor| Tensor::cat(&vec![x; heads], 1)? * &same;
            let (k, v) = (apart(&operands[1])?, apart(&operands[2])?);
            let products = operands[0].matmul(&k.transpose(1, 2)?)?;
            let products = products.reshape((batch * queries * heads, keys))?;
            let weights = self.weights(&products, self.seen(1, heads, device)?)?;
            return weights.reshape((batch, queries, heads * keys))?.matmul(&v);
        }
        let times = heads / key_value_heads;
        let shared = |x: &Tensor| -> Result<Tensor> {
            let x = by_head(x, key_value_heads)?;
            if times == 1 {
                return Ok(x);
            }
            let x = x.unsqueeze(2)?;
            Tensor::cat(&vec![&x; times], 2)?.reshape((batch, heads, keys, dim))
        };
        let q = by_head(&operands[0], heads)?;
        let (k, v) = (shared(&operands[1])?, shared(&operands[2])?);
        let products = q.matmul(&k.transpose(2, 3)?)?;
        let products = products.reshape((batch * heads * queries, keys))?;
        let weights = self.weights(&products, self.seen(heads, 1, device)?)?;
        joined(&weights.reshape((batch, heads, queries, keys))?.matmul(&v)?)
    }
}
