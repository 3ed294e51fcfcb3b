//! Two convolutions with norms before them, and a residual.

use super::norm;
use crate::error::Result;
use crate::layers::{Conv2d, ConvOptions, GroupNorm, Linear};
use crate::ops::{self, Epilogue, Residual};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// `shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))`.
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// Where the number of channels changes.
    shortcut: Option<Linear>,
}

impl ResBlock {
    /// Reads `norm1`, `conv1`, `norm2`, `conv2` and, between different widths, `nin_shortcut`.
    pub fn load(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let conv = |name: &str, inputs: usize| {
            Conv2d::load(&weights.pp(name), inputs, outputs, ConvOptions::SAME_3X3)
        };
        let shortcut = weights.pp("nin_shortcut");
        Ok(Self {
            norm1: norm(&weights.pp("norm1"), inputs)?,
            conv1: conv("conv1", inputs)?,
            norm2: norm(&weights.pp("norm2"), outputs)?,
            conv2: conv("conv2", outputs)?,
            shortcut: match inputs == outputs {
                true => None,
                false => {
                    let init = Init::KaimingUniform;
                    let layer = Linear::load_pointwise(&shortcut, inputs, outputs, true, init)?;
                    Some(layer)
                }
            },
        })
    }

    /// `[batch, height, width, inputs]` to `[.., outputs]`. At full size a map is what memory is made of, so
    /// none outlives its use: three are there at most.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.norm1.forward(x)?;
        h = ops::silu(&h)?;
        h = self.conv1.forward(&h)?;
        h = self.norm2.forward(&h)?;
        h = ops::silu(&h)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => &shortcut.forward(x)?,
            None => x,
        };
        let steps = Epilogue {
            residual: Some(Residual::Same(shortcut)),
            ..Epilogue::default()
        };
        self.conv2.forward_with(&h, &steps)
    }
}
