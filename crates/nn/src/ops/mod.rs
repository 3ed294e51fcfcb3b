//! The kernels as differentiable candle operations: the only place that knows both.
//!
//! Every function takes f32 tensors on the CPU in the layouts its documentation gives, makes them
//! contiguous where they are not, and returns a new tensor. Sizes that do not fit are errors. Where operands
//! lie on a card, so does the result; what a card cannot do is an error.

mod accelerated;
mod activation;
mod attention;
mod biased_attention;
mod clip_windows;
mod confidence;
mod conv;
mod device_cache;
mod epilogue;
mod glu_mb_conv;
mod group_norm;
mod head_scores;
mod heads;
mod int4;
mod int4_on_device;
mod linear;
mod lite_mla;
mod lstm;
mod norm;
pub(crate) mod on_device;
mod packed;
mod packed_attention;
mod pool;
mod relative_attention;
mod resample;
mod resize;
mod rotary_at;
mod span_attention;
pub(crate) mod storage;
mod tangent;
mod window_attention;
mod windows;

pub use activation::{
    add, gated_gelu_tanh, gated_silu, gelu_erf, gelu_tanh, joined_gelu_tanh, relu, silu, silu_times,
};
pub use attention::{AttentionOptions, attention, linear_attention, rotary};
pub use biased_attention::biased_attention;
pub use brisk_cuda::ops::{Barred, LargestLogit};
pub use clip_windows::{causal_windows, without_border};
pub use confidence::largest_logits;
pub use conv::{conv2d, depthwise_conv2d, depthwise_conv2d_strided};
pub(crate) use device_cache::DeviceCache;
pub use epilogue::{Activation, Epilogue, Norm, Residual, ShortcutKind};
pub use glu_mb_conv::DepthwiseWeight;
pub(crate) use glu_mb_conv::glu_mb_conv;
pub use group_norm::{GroupFactors, group_norm};
pub use head_scores::softmax_by_head;
pub use int4::PackedInt4;
pub use linear::linear;
pub use lite_mla::{GatheredScale, MultiScaleStates, multi_scale_linear_attention};
pub use lstm::lstm;
pub(crate) use norm::norm_pair;
pub use norm::{gate_residual, layer_norm, layer_norm_modulate, rms_norm};
pub(crate) use packed::quantize;
pub use packed::{PackedConv2d, PackedLinear, can_pack};
pub(crate) use packed_attention::{packed_attention, write_key_values};
pub use pool::max_pool2d;
pub use relative_attention::{RelativePositions, relative_attention};
pub use resample::{
    group_mean, pixel_shuffle, pixel_unshuffle, repeat_channels, repeat_edges, shortcut, to_nchw,
    to_nhwc, upsample_nearest2,
};
pub use resize::{resize_area, resize_bicubic, resize_bilinear};
pub use rotary_at::{RotaryAngles, rotary_at};
pub use span_attention::{AttentionSpan, span_attention};
pub use window_attention::window_attention;
pub use windows::{from_windows, windows};

use crate::error::Result;
use crate::tensor::{DType, Tensor};
use storage::with_slices;

/// Whether every value is finite. Integers are.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    if x.device().is_some() {
        return all_finite(&x.host()?.into());
    }
    if let Some(tangent) = x.tangent() {
        return Ok(all_finite(&x.primal())? && all_finite(&tangent)?);
    }
    if x.dtype() != DType::F32 {
        return Ok(true);
    }
    if x.is_accelerated() {
        // A sum of zeros times each: NaN where one was not finite.
        let sum: f32 = (x.detach() * 0.0)?.sum_all()?.to_scalar()?;
        return Ok(!sum.is_nan());
    }
    Ok(with_slices!([x], { brisk_kernels::finite::all_finite(x) }))
}
