//! Softmax attention with a number added to every score.

use super::heads::{join, split};
use super::linear::shape_error;
use crate::error::Result;
use crate::tensor::{D, Tensor};

/// Scores that are held at once.
const SCORES: usize = 1 << 24;

/// Softmax attention of q `[batch, queries, heads·dim]` over k and v `[batch, keys, heads·dim]`, to the shape
/// of q, with `bias` `[batch or 1, heads or 1, queries, keys]` added to the products after they were
/// multiplied with `scale`: relative positions (T5, SAM), or −∞ for what is not to be seen. Differentiable;
/// scores are made for some queries at a time.
///
/// # Errors
/// Sizes that do not fit.
pub fn biased_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    bias: &Tensor,
) -> Result<Tensor> {
    let expected = format!(
        "k, v [batch, keys, channels] and bias [batch or 1, heads or 1, queries, keys] for q {:?} of {heads} \
         heads, not {:?}, {:?} and {:?}",
        q.dims(),
        k.dims(),
        v.dims(),
        bias.dims()
    );
    let refuse = || shape_error("biased_attention", q.dims(), &expected);
    let (batch, queries, width) = q.dims3().map_err(|_| refuse())?;
    let (_, keys, _) = k.dims3().map_err(|_| refuse())?;
    let (rows, planes, _, _) = bias.dims4().map_err(|_| refuse())?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && k.dims() == [batch, keys, width]
        && v.dims() == k.dims()
        && bias.dims() == [rows, planes, queries, keys]
        && [1, batch].contains(&rows)
        && [1, heads].contains(&planes)
        && keys > 0;
    if !fits {
        return Err(refuse());
    }
    let (q, k, v) = (split(q, heads)?, split(k, heads)?, split(v, heads)?);
    let k = k.transpose(2, 3)?.contiguous()?;
    let most = (SCORES / (batch * heads * keys).max(1)).clamp(1, queries.max(1));
    let mut parts = Vec::new();
    for start in (0..queries).step_by(most) {
        let count = most.min(queries - start);
        let some = q.narrow(2, start, count)?.contiguous()?;
        let scores = (some.matmul(&k)? * scale)?;
        let scores = scores.broadcast_add(&bias.narrow(2, start, count)?)?;
        parts.push(softmax(&scores)?.matmul(&v)?);
    }
    let joined = match &parts[..] {
        [] => return Err(refuse()),
        [one] => one.clone(),
        several => Tensor::cat(several, 2)?,
    };
    join(&joined)
}

/// Over the last dimension.
fn softmax(x: &Tensor) -> Result<Tensor> {
    // The largest is a constant to the result, whatever its gradient.
    let largest = x.detach().max_keepdim(D::Minus1)?;
    let powers = x.broadcast_sub(&largest)?.exp()?;
    let sums = powers.sum_keepdim(D::Minus1)?;
    powers.broadcast_div(&sums)
}
