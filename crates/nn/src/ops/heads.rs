//! Heads of an attention, side by side in the channels or one after another.

use crate::error::Result;
use crate::tensor::Tensor;

/// `[batch, tokens, heads·dim]` to `[batch, heads, tokens, dim]`.
pub(super) fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    x.contiguous()?
        .reshape((batch, tokens, heads, width / heads))?
        .transpose(1, 2)?
        .contiguous()
}

/// The way back.
pub(super) fn join(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, tokens, dim) = x.dims4()?;
    x.transpose(1, 2)?
        .contiguous()?
        .reshape((batch, tokens, heads * dim))
}
