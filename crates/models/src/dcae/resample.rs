//! Halving and doubling of feature maps, each a convolution plus an index-map shortcut without
//! parameters.

use brisk_nn::ops::{self, Epilogue, Residual, ShortcutKind};
use brisk_nn::{Conv2d, Result, Tensor, Weights};

use super::blocks::conv3x3;
use super::config::{Downsample, Upsample};
use crate::rows::{rows_of, strips, widened};

/// `[B,H,W,Cin]` to `[B,H/2,W/2,Cout]`; H and W even.
pub(super) struct Down {
    conv: Conv2d,
    kind: Downsample,
    shortcut: bool,
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
            shortcut,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let steps = shortcut_step(self.shortcut, x, ShortcutKind::Down);
        match self.kind {
            Downsample::Conv => self.conv.forward_with(x, &steps),
            Downsample::PixelUnshuffle => {
                steps.apply(ops::pixel_unshuffle(&self.conv.forward(x)?, 2)?)
            }
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
    /// Channels of what it gives.
    channels: usize,
    kind: Upsample,
    shortcut: bool,
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
            channels: to,
            kind,
            shortcut,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let steps = shortcut_step(self.shortcut, x, ShortcutKind::Up);
        match self.kind {
            Upsample::Interpolate => self.conv.forward_upsampled_with(x, &steps),
            Upsample::PixelShuffle => steps.apply(ops::pixel_shuffle(&self.conv.forward(x)?, 2)?),
        }
    }

    /// As [`forward`](Self::forward) of what is not trained, `rows` rows of input at a time.
    pub(super) fn forward_strips(&self, x: &Tensor, rows: usize) -> Result<Tensor> {
        let (batch, height, width, _) = x.dims4()?;
        let shape = (batch, 2 * height, 2 * width, self.channels);
        let doubled = Tensor::zeros(shape, x.dtype())?;
        for strip in strips(height, rows) {
            let seen = widened(&strip, self.halo(0), height);
            let y = self.forward(&rows_of(x, &seen)?)?;
            let own = 2 * (strip.start - seen.start)..2 * (strip.end - seen.start);
            doubled.slice_set(&rows_of(&y, &own)?.detach(), 1, 2 * strip.start)?;
        }
        Ok(doubled)
    }

    /// Input rows on either side that are needed for `rows` more output rows on either side.
    pub(super) fn halo(&self, rows: usize) -> usize {
        match self.kind {
            Upsample::PixelShuffle => rows.div_ceil(2) + 1,
            Upsample::Interpolate => (rows + 1).div_ceil(2),
        }
    }
}

/// The shortcut as the step after the main branch.
fn shortcut_step(wanted: bool, x: &Tensor, kind: ShortcutKind) -> Epilogue<'_> {
    Epilogue {
        residual: wanted.then_some(Residual::Shortcut(x, kind)),
        ..Epilogue::default()
    }
}
