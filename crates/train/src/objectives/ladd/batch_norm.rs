//! Batch normalisation over small groups of samples, the same in training and in use: no running statistics.

use brisk_nn::Tensor;

use crate::error::{Error, Result};

/// Samples whose statistics are taken together.
const GROUP: usize = 8;
const EPSILON: f64 = 1e-5;

/// Normalises every channel of `x` `[B,N,d]` over all tokens of a group of samples, then applies `weight` and `bias`
/// `[d]`.
///
/// # Errors
/// A batch that does not divide into groups.
pub(in crate::objectives) fn batch_norm_local(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    let (batch, tokens, channels) = x.dims3()?;
    let groups = batch.div_ceil(GROUP);
    if groups == 0 || !batch.is_multiple_of(groups) {
        return Err(Error::Recipe(format!(
            "{batch} samples do not divide into {groups} groups of up to {GROUP}, over which the discriminator \
             normalises"
        )));
    }
    let grouped = x.reshape((groups, batch / groups * tokens, channels))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + EPSILON)?.sqrt()?;
    Ok(centred
        .broadcast_div(&deviation)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)?
        .reshape((batch, tokens, channels))?)
}
