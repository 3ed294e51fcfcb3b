//! The kernels as differentiable candle operations: the only place that knows both.
//!
//! Every function takes f32 tensors on the CPU in the layouts its documentation gives, makes them
//! contiguous where they are not, and returns a new tensor. Sizes that do not fit are errors.

mod activation;
mod attention;
mod conv;
mod linear;
mod norm;
mod packed;
mod packed_attention;
mod resample;
mod rotary_at;
pub(crate) mod storage;

pub use activation::{gated_gelu_tanh, gated_silu, gelu_tanh, relu, silu, silu_times};
pub use attention::{AttentionOptions, attention, linear_attention, rotary};
pub use conv::{conv2d, depthwise_conv2d};
pub use linear::linear;
pub use norm::{gate_residual, layer_norm_modulate, rms_norm};
pub use packed::{PackedConv2d, PackedLinear, can_pack};
pub use packed_attention::{AttentionSpan, packed_attention};
pub use resample::{pixel_shuffle, pixel_unshuffle, to_nchw, to_nhwc, upsample_nearest2};
pub use rotary_at::{RotaryTable, rotary_at};

use crate::error::Result;
use candle_core::{DType, Tensor};
use storage::with_slices;

/// Whether every value is finite. Integers are.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    if x.dtype() != DType::F32 {
        return Ok(true);
    }
    Ok(with_slices!([x], { crate::weights::all_finite(x) }))
}
