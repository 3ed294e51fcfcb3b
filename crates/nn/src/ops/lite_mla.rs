//! Multi-scale linear attention over frozen weights.

use super::glu_mb_conv::DepthwiseWeight;
use super::linear::shape_error;
use super::storage::{slice, tensor, with_slices};
use crate::error::Result;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::depthwise::{self, DepthwiseShape};
use brisk_kernels::grouped;
use brisk_kernels::linear_attention::{self, LinearAttentionShape};
use candle_core::Tensor;

/// One extra scale: a neighbourhood and a small matrix for each query, key and value of a head.
#[derive(Clone, Copy, Debug)]
pub struct GatheredScale<'a> {
    /// Over all `heads·3·dim` channels.
    pub gather: DepthwiseWeight<'a>,
    /// Side of its kernel.
    pub kernel: usize,
    /// `[3·heads, dim (in), dim (out)]`
    pub mix: &'a Tensor,
}

/// Attends at every scale: `projected` `[batch, height, width, heads·3·dim]`, a head's query, key and
/// value side by side, to `[batch, height, width, (1 + scales)·heads·dim]`. Not differentiable.
///
/// # Errors
/// Sizes that do not fit.
pub fn multi_scale_linear_attention(
    projected: &Tensor,
    heads: usize,
    scales: &[GatheredScale],
    eps: f64,
) -> Result<Tensor> {
    let (batch, height, width, wide) = projected.dims4()?;
    let dim = wide / (3 * heads).max(1);
    let fits = dim > 0
        && wide == 3 * heads * dim
        && scales.iter().all(|scale| {
            scale.gather.bias.is_none()
                && scale.kernel % 2 == 1
                && scale.gather.weight.elem_count() == scale.kernel * scale.kernel * wide
                && scale.mix.dims() == [3 * heads, dim, dim]
        });
    if !fits {
        let expected = format!("channels of {heads} heads' queries, keys and values");
        let name = "multi_scale_linear_attention";
        return Err(shape_error(name, projected.dims(), &expected));
    }
    let map = |kernel| DepthwiseShape {
        batch,
        height,
        width,
        channels: wide,
        kernel,
    };
    let shape = LinearAttentionShape {
        batch,
        tokens: height * width,
        heads,
        dim,
        eps: eps as f32,
    };
    let dims = [batch, height, width, (1 + scales.len()) * heads * dim];
    with_slices!([projected], {
        let mut gathered = unfilled(if scales.is_empty() {
            0
        } else {
            projected.len()
        });
        let mut mixed = Vec::with_capacity(scales.len());
        for scale in scales {
            let (weight, mix) = (scale.gather.weight.contiguous()?, scale.mix.contiguous()?);
            let (weight, mix) = (weight.storage_and_layout(), mix.storage_and_layout());
            let (weight, mix) = (slice(&weight.0, weight.1)?, slice(&mix.0, mix.1)?);
            depthwise::forward(&map(scale.kernel), projected, weight, None, &mut gathered);
            let mut values = unfilled(projected.len());
            grouped::forward(&gathered, mix, dim, 3 * heads, &mut values);
            mixed.push(values);
        }
        drop(gathered);
        let sources: Vec<&[f32]> = std::iter::once(projected)
            .chain(mixed.iter().map(Vec::as_slice))
            .collect();
        let mut o = unfilled(dims.iter().product());
        linear_attention::forward_interleaved(&shape, &sources, &mut o);
        Ok(tensor(o, &dims)?)
    })
}
