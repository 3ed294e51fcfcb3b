//! The gated inverted bottleneck over frozen weights.

use super::epilogue::Epilogue;
use super::linear::shape_error;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::glu_mb_conv::{self as kernel, GluMbConv, GluMbConvShape, Pointwise};

/// A depthwise convolution's weight `[kernel·kernel, channels]` (or `[kernel, kernel, channels]`) and
/// bias `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseWeight<'a> {
    /// A tap after the other.
    pub weight: &'a Tensor,
    /// Added to every pixel.
    pub bias: Option<&'a Tensor>,
}

/// 1×1 to `2·hidden`, SiLU, depthwise 3×3, `value·SiLU(gate)`, 1×1, then `steps`:
/// `[batch, height, width, channels]` to `[batch, height, width, outputs]`. The caller has seen to it
/// that nothing is to be differentiated ([`Epilogue::fuses`]).
///
/// # Errors
/// Sizes that do not fit.
pub(crate) fn glu_mb_conv(
    x: &Tensor,
    inverted: Pointwise,
    depth: DepthwiseWeight,
    point: Pointwise,
    steps: &Epilogue,
) -> Result<Tensor> {
    let wide = inverted.outputs();
    let (inputs, outputs) = (inverted.inputs(), point.outputs());
    let fits = x.rank() == 4
        && x.dims()[3] == inputs
        && depth.weight.elem_count() == 9 * wide
        && wide == 2 * point.inputs();
    if !fits {
        let expected = format!("[batch, height, width, {inputs}], 9·{wide} depthwise weights");
        return Err(shape_error("glu_mb_conv", x.dims(), &expected));
    }
    let (batch, height, width, _) = x.dims4()?;
    let bias = match depth.bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(wide, x.dtype())?,
    };
    let weight = depth.weight;
    let dims = [batch, height, width, outputs];
    let shape = GluMbConvShape {
        batch,
        height,
        width,
    };
    with_slices!([x, weight, bias], {
        let layer = GluMbConv {
            inverted,
            depth: weight,
            depth_bias: bias,
            point,
        };
        let y = steps.with_kernel(None, &dims, |steps| {
            let mut y = unfilled(dims.iter().product());
            kernel::forward(&shape, x, &layer, steps, &mut y);
            y
        })?;
        Ok(tensor(y, &dims)?)
    })
}
