//! Clips at the boundary, where channels come first.

use brisk_nn::Tensor;

use crate::Result;

/// `[B,C,F,h,w]` to `[B,F,h,w,C]`.
///
/// # Errors
/// Another number of dimensions.
pub fn to_channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute(vec![0, 2, 3, 4, 1])?.contiguous()
}

/// `[B,F,h,w,C]` to `[B,C,F,h,w]`.
///
/// # Errors
/// Another number of dimensions.
pub fn to_channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute(vec![0, 4, 1, 2, 3])?.contiguous()
}
