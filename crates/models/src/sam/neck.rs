//! The neck behind a transformer of patches.

use brisk_nn::{Conv2d, ConvOptions, Init, LayerNorm, Linear, Tensor, Weights};

use super::cost;
use crate::Result;
use crate::cost::Cost;

/// Epsilon of the neck's norms, which no key says.
const NECK_EPS: f64 = 1e-6;

/// From the width of the layers to that of the decoder.
#[derive(Debug)]
pub(super) struct Neck {
    narrow: Linear,
    norm1: LayerNorm,
    mix: Conv2d,
    norm2: LayerNorm,
}

impl Neck {
    /// Reads `conv1`, `layer_norm1`, `conv2` and `layer_norm2`.
    pub(super) fn load(weights: &Weights, from: usize, to: usize) -> Result<Self> {
        let mix = ConvOptions {
            bias: false,
            ..ConvOptions::SAME_3X3
        };
        let narrow = weights.pp("conv1");
        Ok(Self {
            narrow: Linear::load_pointwise(&narrow, from, to, false, Init::KaimingUniform)?,
            norm1: LayerNorm::load(&weights.pp("layer_norm1"), to, NECK_EPS, true)?,
            mix: Conv2d::load(&weights.pp("conv2"), to, to, mix)?,
            norm2: LayerNorm::load(&weights.pp("layer_norm2"), to, NECK_EPS, true)?,
        })
    }

    /// What one costs over so many cells.
    pub(super) fn cost(cells: u64, from: usize, to: usize) -> Cost {
        let mut neck = Cost::new("neck");
        cost::conv(&mut neck, cells, [from, to], 1);
        cost::conv(&mut neck, cells, [to, to], 3);
        neck.parameters += 4 * to as u64;
        neck
    }

    /// `[B,H,W,from]` to `[B,H,W,to]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm1.forward(&self.narrow.forward(x)?)?;
        self.norm2.forward(&self.mix.forward(&x)?)
    }
}
