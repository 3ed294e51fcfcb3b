//! Rearrangements between space and channels.

use super::epilogue::ShortcutKind;
use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::resample as kernel;
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// `[batch, channels, height, width]` to `[batch, height, width, channels]`.
pub fn to_nhwc(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// The first index of `dim` so many times more in front, the last one behind.
///
/// # Errors
/// A tensor of no values.
pub fn repeat_edges(x: &Tensor, dim: usize, before: usize, behind: usize) -> Result<Tensor> {
    if before + behind == 0 {
        return Ok(x.clone());
    }
    let Some(last) = x.dim(dim)?.checked_sub(1) else {
        return Err(shape_error("repeat_edges", x.dims(), "at least one value"));
    };
    let mut parts = vec![x.narrow(dim, 0, 1)?; before];
    parts.push(x.clone());
    parts.extend(vec![x.narrow(dim, last, 1)?; behind]);
    Tensor::cat(&parts, dim)
}

/// `[batch, height, width, channels]` to `[batch, channels, height, width]`.
pub fn to_nchw(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// Moves 2×2 squares into channels: `[b, h, w, c]` to `[b, h/2, w/2, 4c]`, output channel
/// `4c + 2·dy + dx`. The only factor is 2.
pub fn pixel_unshuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    match x.dims4() {
        Ok((b, h, w, c)) if factor == 2 && h.is_multiple_of(2) && w.is_multiple_of(2) => {
            if x.device().is_some() || x.is_accelerated() {
                return x
                    .reshape(vec![b, h / 2, 2, w / 2, 2, c])?
                    .permute(vec![0, 1, 3, 5, 2, 4])?
                    .reshape((b, h / 2, w / 2, 4 * c));
            }
            Ok(x.contiguous()?.apply_op1(Rearrange::Unshuffle)?)
        }
        _ => Err(shape_error(
            "pixel_unshuffle by 2",
            x.dims(),
            "[batch, even, even, channels]",
        )),
    }
}

/// Inverse of [`pixel_unshuffle`].
pub fn pixel_shuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    match x.dims4() {
        Ok((b, h, w, c)) if factor == 2 && c.is_multiple_of(4) => {
            if x.device().is_some() || x.is_accelerated() {
                return x
                    .reshape(vec![b, h, w, c / 4, 2, 2])?
                    .permute(vec![0, 1, 4, 2, 5, 3])?
                    .reshape((b, 2 * h, 2 * w, c / 4));
            }
            Ok(x.contiguous()?.apply_op1(Rearrange::Shuffle)?)
        }
        _ => Err(shape_error(
            "pixel_shuffle by 2",
            x.dims(),
            "[batch, height, width, 4·channels]",
        )),
    }
}

/// Every pixel becomes a 2×2 square.
pub fn upsample_nearest2(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x
        .dims4()
        .map_err(|_| shape_error("upsample_nearest2", x.dims(), "four dimensions"))?;
    if x.device().is_some() || x.is_accelerated() {
        return x
            .reshape(vec![b, h, 1, w, 1, c])?
            .broadcast_as(vec![b, h, 2, w, 2, c])?
            .reshape((b, 2 * h, 2 * w, c));
    }
    x.contiguous()?.apply_op1(Rearrange::Upsample)
}

/// Mean over groups of consecutive channels: `[batch, height, width, C]` to
/// `[batch, height, width, channels]`.
pub fn group_mean(x: &Tensor, channels: usize) -> Result<Tensor> {
    let (batch, height, width, wide) = x.dims4()?;
    if channels == 0 || !wide.is_multiple_of(channels) {
        let expected = format!("a multiple of {channels} channels");
        return Err(shape_error("group_mean", x.dims(), &expected));
    }
    if wide == channels {
        return Ok(x.clone());
    }
    if let Some(x) = x.device() {
        return Ok(brisk_cuda::ops::group_mean(x.tensor(), wide / channels)?.into());
    }
    let groups = x.reshape((batch, height, width, channels, wide / channels))?;
    groups.mean(4)
}

/// Every channel repeated in place: `[batch, height, width, C]` to
/// `[batch, height, width, channels]`.
pub fn repeat_channels(x: &Tensor, channels: usize) -> Result<Tensor> {
    let (batch, height, width, narrow) = x.dims4()?;
    if narrow == 0 || !channels.is_multiple_of(narrow) {
        let expected = format!("a divisor of {channels} channels");
        return Err(shape_error("repeat_channels", x.dims(), &expected));
    }
    let times = channels / narrow;
    if times == 1 {
        return Ok(x.clone());
    }
    x.unsqueeze(4)?
        .broadcast_as((batch, height, width, narrow, times))?
        .contiguous()?
        .reshape((batch, height, width, channels))
}

/// DC-AE's shortcut around a halving or doubling to `channels` channels, differentiable: for
/// [`ShortcutKind::Down`] pixel unshuffle and [`group_mean`], for [`ShortcutKind::Up`]
/// [`repeat_channels`] and pixel shuffle.
pub fn shortcut(x: &Tensor, kind: ShortcutKind, channels: usize) -> Result<Tensor> {
    match kind {
        ShortcutKind::Down => group_mean(&pixel_unshuffle(x, 2)?, channels),
        // As many channels in as out: repeating four times and shuffling is nearest.
        ShortcutKind::Up if x.dims().last() == Some(&channels) => upsample_nearest2(x),
        ShortcutKind::Up => pixel_shuffle(&repeat_channels(x, 4 * channels)?, 2),
    }
}

#[derive(Clone, Copy)]
enum Rearrange {
    Unshuffle,
    Shuffle,
    Upsample,
}

impl CustomOp1 for Rearrange {
    fn name(&self) -> &'static str {
        "rearrange"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let (b, h, w, c) = layout.shape().dims4()?;
        Ok(match self {
            Self::Unshuffle => {
                let mut y = unfilled(x.len());
                kernel::pixel_unshuffle(x, b, h, w, c, &mut y);
                (CpuStorage::F32(y), (b, h / 2, w / 2, 4 * c).into())
            }
            Self::Shuffle => {
                let mut y = unfilled(x.len());
                kernel::pixel_shuffle(x, b, h, w, c, &mut y);
                (CpuStorage::F32(y), (b, 2 * h, 2 * w, c / 4).into())
            }
            Self::Upsample => {
                let mut y = unfilled(4 * x.len());
                kernel::upsample_nearest(x, b, h, w, c, &mut y);
                (CpuStorage::F32(y), (b, 2 * h, 2 * w, c).into())
            }
        })
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match self {
            Self::Unshuffle => grad.apply_op1_no_bwd(&Self::Shuffle)?,
            Self::Shuffle => grad.apply_op1_no_bwd(&Self::Unshuffle)?,
            Self::Upsample => {
                let (b, h, w, c) = x.dims4()?;
                with_slices!([grad], {
                    let mut dx = unfilled(b * h * w * c);
                    kernel::upsample_nearest_backward(grad, b, h, w, c, &mut dx);
                    tensor(dx, &[b, h, w, c])?
                })
            }
        }))
    }
}
