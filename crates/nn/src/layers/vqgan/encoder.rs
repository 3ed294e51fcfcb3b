//! From a picture to a latent.

use super::middle::{Level, Middle};
use super::{HALVING, VqganOptions, norm};
use crate::check_finite;
use crate::error::Result;
use crate::layers::{Conv2d, ConvOptions, GroupNorm};
use crate::ops;
use crate::tensor::Tensor;
use crate::trace::Trace;
use crate::weights::Weights;

const STAGE: &str = "encoder";

/// The encoder.
#[derive(Clone, Debug)]
pub struct VqganEncoder {
    conv_in: Conv2d,
    /// Levels, each but the deepest with what halves its map.
    levels: Vec<(Level, Option<Conv2d>)>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl VqganEncoder {
    /// Reads `conv_in`, `down.{i}`, `mid`, `norm_out` and `conv_out`.
    ///
    /// # Errors
    /// Widths that are no multiples of 32, or a file that cannot be read.
    pub fn load(weights: &Weights, options: &VqganOptions) -> Result<Self> {
        options.check()?;
        let conv = |name: &str, inputs: usize, outputs: usize| {
            Conv2d::load(&weights.pp(name), inputs, outputs, ConvOptions::SAME_3X3)
        };
        let (base, deepest) = (options.base, options.deepest());
        let mut width = base;
        let mut levels = Vec::with_capacity(options.widths.len());
        for (index, next) in options.widths.iter().copied().enumerate() {
            let weights = weights.pp("down").pp(index);
            let level = Level::load(&weights, options, index, options.blocks, width)?;
            width = next;
            let halving = match index + 1 < options.widths.len() {
                true => {
                    let weights = weights.pp("downsample.conv");
                    Some(Conv2d::load(&weights, width, width, HALVING)?)
                }
                false => None,
            };
            levels.push((level, halving));
        }
        Ok(Self {
            conv_in: conv("conv_in", options.colours, base)?,
            levels,
            middle: Middle::load(&weights.pp("mid"), deepest, options.projections)?,
            norm_out: norm(&weights.pp("norm_out"), deepest)?,
            conv_out: conv("conv_out", deepest, options.latent)?,
        })
    }

    /// `[batch, height, width, colours]` to `[batch, height/r, width/r, latent]`; `trace` sees every block
    /// by its name.
    ///
    /// # Errors
    /// A picture that the levels do not halve to the end, or a non-finite activation.
    pub fn forward(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x)?;
        trace.see("conv_in", &x);
        for (index, (level, halving)) in self.levels.iter().enumerate() {
            let name = format!("down.{index}");
            let inner = &mut trace.within(&name);
            x = level.forward(x, inner)?;
            if let Some(halving) = halving {
                let padded = x.pad_with_zeros(1, 0, 1)?.pad_with_zeros(2, 0, 1)?;
                x = halving.forward(&padded)?;
                inner.see("downsample", &x);
            }
            check_finite(&x, STAGE, &name)?;
        }
        let x = self.middle.forward(&x, &mut trace.within("mid"))?;
        let x = self.norm_out.forward(&x)?;
        trace.see("norm_out", &x);
        let x = self.conv_out.forward(&ops::silu(&x)?)?;
        trace.see("conv_out", &x);
        check_finite(&x, STAGE, "conv_out")?;
        Ok(x)
    }
}
