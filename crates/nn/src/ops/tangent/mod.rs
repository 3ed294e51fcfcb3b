//! How tangents go through operations: the forward-mode rule beside each kernel.
//!
//! An operation turns here when an operand has a tangent; parameters are constants. Values come from the
//! kernels, rates from the formulas.

mod attention;

pub(super) use attention::{attention, linear_attention};

use super::activation;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::{D, Tensor};
use brisk_kernels::activation::{self as kernel, Activation};
use brisk_kernels::buffer::unfilled;

/// A linear map with a bias: `map` gets the operand and whether its bias counts, which a rate does not see.
pub(super) fn affine(x: &Tensor, map: &dyn Fn(&Tensor, bool) -> Result<Tensor>) -> Result<Tensor> {
    let (value, rate) = x.dual_parts();
    let rate = rate.map(|rate| map(&rate, false)).transpose()?;
    map(&value, true)?.with_tangent_of(rate.as_ref())
}

/// A function of every value. Its derivative times a rate is what its backward pass makes of a gradient.
pub(super) fn activation(x: &Tensor, which: Activation) -> Result<Tensor> {
    let (value, rate) = x.dual_parts();
    let y = activation::pointwise(&value, which)?;
    let Some(rate) = rate else { return Ok(y) };
    let dims = value.dims().to_vec();
    let rate: Tensor = with_slices!([value, rate], {
        let mut out = unfilled(value.len());
        kernel::backward(which, value, rate, &mut out);
        tensor(out, &dims)?
    });
    y.with_tangent(&rate)
}

/// With n = x/√(mean x² + eps): ṅ = (ẋ − n·mean(n·ẋ))/√(mean x² + eps).
pub(super) fn rms_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let (value, rate) = x.dual_parts();
    let (weight, bias) = (weight.detach(), bias.map(Tensor::detach));
    let y = super::rms_norm(&value, &weight, bias.as_ref(), eps)?;
    let Some(rate) = rate else { return Ok(y) };
    let root = (value.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let normal = value.broadcast_div(&root)?;
    let along = (&normal * &rate)?.mean_keepdim(D::Minus1)?;
    let rate = (rate - normal.broadcast_mul(&along)?)?.broadcast_div(&root)?;
    y.with_tangent(&rate.broadcast_mul(&weight)?)
}

/// With n the normalised tokens: ṅ = (ẋ − mean ẋ − n·mean(n·ẋ))/√(variance + eps), and the product rule.
pub(super) fn layer_norm_modulate(
    x: &Tensor,
    shift: &Tensor,
    scale: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (value, rate) = x.dual_parts();
    let centred = value.broadcast_sub(&value.mean_keepdim(D::Minus1)?)?;
    let root = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let normal = centred.broadcast_div(&root)?;
    let rate = match rate {
        Some(rate) => {
            let centred = rate.broadcast_sub(&rate.mean_keepdim(D::Minus1)?)?;
            let along = (&normal * &rate)?.mean_keepdim(D::Minus1)?;
            Some((centred - normal.broadcast_mul(&along)?)?.broadcast_div(&root)?)
        }
        None => None,
    };
    let factor = (scale.unsqueeze(1)? + 1.0)?;
    normal
        .with_tangent_of(rate.as_ref())?
        .broadcast_mul(&factor)?
        .broadcast_add(&shift.unsqueeze(1)?)
}

#[cfg(test)]
mod tests;
