//! Attentions.

use super::super::AttentionOptions;
use super::super::heads::{join, split};
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{D, Tensor};

/// The last two dimensions exchanged.
fn turned(x: &Tensor) -> Result<Tensor> {
    x.transpose(D::Minus2, D::Minus1)?.contiguous()
}

/// `a b`, a product of matrices, with the product rule.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((a, a_rate), (b, b_rate)) = (a.dual_parts(), b.dual_parts());
    let of_a = a_rate.map(|rate| rate.matmul(&b)).transpose()?;
    let of_b = b_rate.map(|rate| a.matmul(&rate)).transpose()?;
    let rate = match (of_a, of_b) {
        (Some(a), Some(b)) => Some((a + b)?),
        (rate, None) | (None, rate) => rate,
    };
    a.matmul(&b)?.with_tangent_of(rate.as_ref())
}

/// The sum over the tokens, of value and rate.
fn over_tokens(x: &Tensor) -> Result<Tensor> {
    let (value, rate) = x.dual_parts();
    let rate = rate.map(|rate| rate.sum_keepdim(2)).transpose()?;
    value.sum_keepdim(2)?.with_tangent_of(rate.as_ref())
}

/// `o = q'S / (q'·z + eps)` with S = Σ k'v and z = Σ k', `q'` and `k'` after ReLU: ȯ = (Ṅ − o·Ḋ)/D of its
/// numerator and denominator.
pub(in crate::ops) fn linear_attention(
    qkv: [&Tensor; 3],
    heads: usize,
    eps: f64,
) -> Result<Tensor> {
    let [q, k, v] = qkv;
    let q = ops::relu(&split(q, heads)?)?;
    let k = ops::relu(&split(k, heads)?)?;
    let v = split(v, heads)?;
    let numerator = product(&q, &product(&turned(&k)?, &v)?)?;
    let denominator = (product(&q, &turned(&over_tokens(&k)?)?)? + eps)?;
    join(&numerator.broadcast_div(&denominator)?)
}

/// With probabilities P of the scores s: Ṗ = P∘(ṡ − Σ P∘ṡ), o = Pv.
pub(in crate::ops) fn attention(
    qkv: [&Tensor; 3],
    mask: Option<Vec<Vec<bool>>>,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let plain = options.heads == options.key_value_heads
        && options.softcap.is_none()
        && options.causal.is_none()
        && options.sliding_window.is_none();
    if !plain {
        return Err(Error::Config(
            "attention has a rule for tangents only where every query sees all keys, by as many heads of keys \
             as of queries"
                .to_owned(),
        ));
    }
    let [q, k, v] = qkv.map(|x| split(x, options.heads));
    let (q, k, v) = (q?, k?, v?);
    let scores = (product(&q, &turned(&k)?)? * f64::from(options.scale))?;
    let (scores, rate) = scores.dual_parts();
    let scores = match mask {
        Some(mask) => scores.broadcast_add(&hidden(&mask)?)?,
        None => scores,
    };
    let likely = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
        .exp()?;
    let likely = likely.broadcast_div(&likely.sum_keepdim(D::Minus1)?)?;
    let rate = match rate {
        Some(rate) => {
            let mean = (&likely * &rate)?.sum_keepdim(D::Minus1)?;
            Some((&likely * rate.broadcast_sub(&mean)?)?)
        }
        None => None,
    };
    join(&product(&likely.with_tangent_of(rate.as_ref())?, &v)?)
}

/// What is added to scores: nothing, or enough that a key is not seen, `[batch, 1, 1, keys]`.
fn hidden(mask: &[Vec<bool>]) -> Result<Tensor> {
    let keys = mask.first().map_or(0, Vec::len);
    if mask.iter().any(|row| !row.contains(&true)) {
        let problem = "attention: a query that sees no key has no rule for tangents";
        return Err(Error::Config(problem.to_owned()));
    }
    let addends = mask.iter().flatten();
    let addends: Vec<f32> = addends
        .map(|seen| if *seen { 0.0 } else { -1e30 })
        .collect();
    Tensor::from_vec(addends, (mask.len(), 1, 1, keys))
}
