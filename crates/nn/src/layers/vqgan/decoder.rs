//! From a latent to a picture.

use super::middle::{Level, Middle};
use super::{VqganOptions, norm};
use crate::check_finite;
use crate::error::Result;
use crate::layers::{Conv2d, ConvOptions, GroupNorm};
use crate::ops::{self, Epilogue};
use crate::tensor::Tensor;
use crate::trace::Trace;
use crate::weights::Weights;

const STAGE: &str = "decoder";

/// The decoder.
#[derive(Clone, Debug)]
pub struct VqganDecoder {
    conv_in: Conv2d,
    middle: Middle,
    /// Levels in the order they run, each but the last with the convolution behind its doubled map.
    levels: Vec<(Level, Option<Conv2d>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl VqganDecoder {
    /// Reads `conv_in`, `mid`, `up.{i}`, `norm_out` and `conv_out`.
    ///
    /// # Errors
    /// Widths that are no multiples of 32, or a file that cannot be read.
    pub fn load(weights: &Weights, options: &VqganOptions) -> Result<Self> {
        options.check()?;
        let conv = |name: &str, inputs: usize, outputs: usize| {
            Conv2d::load(&weights.pp(name), inputs, outputs, ConvOptions::SAME_3X3)
        };
        let deepest = options.deepest();
        let conv_in = conv("conv_in", options.latent, deepest)?;
        let middle = Middle::load(&weights.pp("mid"), deepest, options.projections)?;
        let mut width = deepest;
        let mut levels = Vec::with_capacity(options.widths.len());
        for (index, next) in options.widths.iter().copied().enumerate().rev() {
            let weights = weights.pp("up").pp(index);
            let level = Level::load(&weights, options, index, options.blocks + 1, width)?;
            width = next;
            let doubling = match index {
                0 => None,
                _ => {
                    let (weights, same) = (weights.pp("upsample.conv"), ConvOptions::SAME_3X3);
                    Some(Conv2d::load(&weights, width, width, same)?)
                }
            };
            levels.push((level, doubling));
        }
        Ok(Self {
            conv_in,
            middle,
            levels,
            norm_out: norm(&weights.pp("norm_out"), width)?,
            conv_out: conv("conv_out", width, options.colours)?,
        })
    }

    /// `[batch, h, w, latent]` to `[batch, r·h, r·w, colours]`, not clamped; `trace` sees every block by its
    /// name.
    ///
    /// # Errors
    /// Another number of channels, or a non-finite activation.
    pub fn forward(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let x = self.conv_in.forward(x)?;
        trace.see("conv_in", &x);
        let mut x = self.middle.forward(&x, &mut trace.within("mid"))?;
        for (ran, (level, doubling)) in self.levels.iter().enumerate() {
            let name = format!("up.{}", self.levels.len() - 1 - ran);
            let inner = &mut trace.within(&name);
            x = level.forward(x, inner)?;
            if let Some(doubling) = doubling {
                x = doubling.forward_upsampled_with(&x, &Epilogue::default())?;
                inner.see("upsample", &x);
            }
            check_finite(&x, STAGE, &name)?;
        }
        x = self.norm_out.forward(&x)?;
        trace.see("norm_out", &x);
        x = ops::silu(&x)?;
        x = self.conv_out.forward(&x)?;
        trace.see("conv_out", &x);
        check_finite(&x, STAGE, "conv_out")?;
        Ok(x)
    }
}
