//! Convolutions with the batch norm that follows each of them, as one layer.

use brisk_nn::{
    Conv2d, ConvOptions, DepthwiseConv2d, FoldedBatchNorm, Init, Linear, Tensor, Weights,
};

use crate::{Error, Result};

/// How a network names a convolution and its batch norm, and the norm's epsilon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folding {
    pub conv: &'static str,
    pub norm: &'static str,
    pub eps: f64,
}

/// What ends a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A batch norm.
    Norm,
    /// A bias.
    Bias,
}

impl Folding {
    /// Refuses to be trained: batch norms go by their stored statistics.
    pub fn check(weights: &Weights, name: &str) -> Result<()> {
        if weights.is_trainable() {
            return Err(Error::Config(format!(
                "the image encoder {name} is not trained, only run; train a model with a ViT"
            )));
        }
        Ok(())
    }

    /// Weight of this shape and bias of the layer at `weights`.
    fn load(&self, weights: &Weights, shape: &[usize], end: End) -> Result<(Tensor, Tensor)> {
        let (conv, outputs) = (weights.pp(self.conv), shape[0]);
        let weight = conv.get("weight", shape, Init::KaimingUniform)?;
        match end {
            End::Bias => Ok((weight, conv.get("bias", &[outputs], Init::Zeros)?)),
            End::Norm => {
                let norm = FoldedBatchNorm::load(&weights.pp(self.norm), outputs, self.eps)?;
                norm.fold(&weight, None)
            }
        }
    }

    /// One of 3×3.
    pub fn conv(
        &self,
        weights: &Weights,
        [from, to]: [usize; 2],
        stride: usize,
        end: End,
    ) -> Result<Conv2d> {
        let (weight, bias) = self.load(weights, &[to, from, 3, 3], end)?;
        let options = ConvOptions {
            stride,
            exact: weights.is_exact(),
            ..ConvOptions::SAME_3X3
        };
        Conv2d::new(weight, Some(bias), options)
    }

    /// One of 1×1.
    pub fn pointwise(&self, weights: &Weights, [from, to]: [usize; 2], end: End) -> Result<Linear> {
        let (weight, bias) = self.load(weights, &[to, from, 1, 1], end)?;
        Linear::new(weight.reshape((to, from))?, Some(bias))
    }

    /// One of 3×3 of every channel by itself.
    pub fn depthwise(
        &self,
        weights: &Weights,
        channels: usize,
        end: End,
    ) -> Result<DepthwiseConv2d> {
        let (weight, bias) = self.load(weights, &[channels, 1, 3, 3], end)?;
        DepthwiseConv2d::new(weight, Some(bias))
    }
}
