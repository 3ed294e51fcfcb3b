//! Halving and doubling of feature maps, each a convolution plus an index-map shortcut without
//! parameters.

use brisk_nn::{Conv2d, Result, Weights, ops};
use candle_core::Tensor;

use super::blocks::conv3x3;
use super::config::{Downsample, Upsample};

/// Mean over groups of consecutive channels: `[..,C]` to `[..,channels]`.
pub(super) fn group_mean(x: &Tensor, channels: usize) -> Result<Tensor> {
    let (batch, height, width, wide) = x.dims4()?;
    let group = wide / channels;
    if group == 1 {
        return Ok(x.clone());
    }
    Ok(x.reshape((batch, height, width, channels, group))?
        .mean(4)?)
}

/// Every channel repeated in place: `[..,C]` to `[..,channels]`.
pub(super) fn repeat_channels(x: &Tensor, channels: usize) -> Result<Tensor> {
    let (batch, height, width, narrow) = x.dims4()?;
    let times = channels / narrow;
    if times == 1 {
        return Ok(x.clone());
    }
    Ok(x.unsqueeze(4)?
        .broadcast_as((batch, height, width, narrow, times))?
        .contiguous()?
        .reshape((batch, height, width, channels))?)
}

/// `[B,H,W,Cin]` to `[B,H/2,W/2,Cout]`; H and W even.
pub(super) struct Down {
    conv: Conv2d,
    kind: Downsample,
    /// Output channels of the shortcut, where there is one.
    shortcut: Option<usize>,
}

impl Down {
    pub(super) fn load(
        kind: Downsample,
        weights: &Weights,
        from: usize,
        to: usize,
        shortcut: bool,
    ) -> Result<Self> {
        let weights = weights.pp("conv");
        let conv = match kind {
            Downsample::Conv => Conv2d::load(&weights, from, to, conv3x3(2, true))?,
            Downsample::PixelUnshuffle => Conv2d::load(&weights, from, to / 4, conv3x3(1, true))?,
        };
        Ok(Down {
            conv,
            kind,
            shortcut: shortcut.then_some(to),
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let main = self.conv.forward(x)?;
        let main = match self.kind {
            Downsample::Conv => main,
            Downsample::PixelUnshuffle => ops::pixel_unshuffle(&main, 2)?,
        };
        match self.shortcut {
            None => Ok(main),
            Some(channels) => Ok((main + group_mean(&ops::pixel_unshuffle(x, 2)?, channels)?)?),
        }
    }

    /// Input rows beyond its own two that an output row needs, when `rows` more output rows on
    /// either side are wanted.
    pub(super) fn halo(&self, rows: usize) -> usize {
        2 * rows + 1
    }
}

/// `[B,H,W,Cin]` to `[B,2H,2W,Cout]`
pub(super) struct Up {
    conv: Conv2d,
    kind: Upsample,
    /// Input and output channels of the shortcut, where there is one.
    shortcut: Option<(usize, usize)>,
}

impl Up {
    pub(super) fn load(
        kind: Upsample,
        weights: &Weights,
        from: usize,
        to: usize,
        shortcut: bool,
    ) -> Result<Self> {
        let weights = weights.pp("conv");
        let wide = match kind {
            Upsample::Interpolate => to,
            Upsample::PixelShuffle => 4 * to,
        };
        let conv = Conv2d::load(&weights, from, wide, conv3x3(1, true))?;
        Ok(Up {
            conv,
            kind,
            shortcut: shortcut.then_some((from, to)),
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let nearest = match (self.kind, self.shortcut) {
            (Upsample::Interpolate, _) => Some(ops::upsample_nearest2(x)?),
            (_, Some((from, to))) if from == to => Some(ops::upsample_nearest2(x)?),
            _ => None,
        };
        let main = match (self.kind, &nearest) {
            (Upsample::Interpolate, Some(nearest)) => self.conv.forward(nearest)?,
            _ => ops::pixel_shuffle(&self.conv.forward(x)?, 2)?,
        };
        let shortcut = match (self.shortcut, nearest) {
            (None, _) => return Ok(main),
            // As many channels in as out: repeating four times and shuffling is nearest.
            (Some((from, to)), Some(nearest)) if from == to => nearest,
            (Some((_, to)), _) => ops::pixel_shuffle(&repeat_channels(x, 4 * to)?, 2)?,
        };
        Ok((main + shortcut)?)
    }

    /// Input rows on either side that are needed for `rows` more output rows on either side.
    pub(super) fn halo(&self, rows: usize) -> usize {
        match self.kind {
            Upsample::PixelShuffle => rows.div_ceil(2) + 1,
            Upsample::Interpolate => (rows + 1).div_ceil(2),
        }
    }
}
