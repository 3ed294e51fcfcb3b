//! Halving and doubling of feature maps, each a convolution plus an index-map shortcut without
//! parameters.

use brisk_nn::ops::{self, Epilogue, Residual, ShortcutKind};
use brisk_nn::{Conv2d, Result, Tensor, Weights};

use super::blocks::conv3x3;
use super::config::{Downsample, Upsample};

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
