//! The inverted bottleneck (MobileNetV2, arXiv 1801.04381).

use brisk_nn::ops::{Activation, Epilogue, Residual};
use brisk_nn::{DepthwiseConv2d, Linear, Tensor, Weights};

use super::cost;
use super::folding::{End, Folding};
use crate::Result;
use crate::cost::Cost;

/// Widths and stride of an inverted bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MbConvShape {
    pub from: usize,
    pub inner: usize,
    pub to: usize,
    pub stride: usize,
}

/// 1×1 to the inner width, 3×3 of every channel by itself, 1×1 to the outer width, with activations between them.
#[derive(Debug)]
pub(super) struct MbConv {
    expand: Linear,
    depth: DepthwiseConv2d,
    project: Linear,
    stride: usize,
    activation: Activation,
}

impl MbConv {
    /// Reads the layers of these names; `ends` are what ends the first two, a norm ends the last.
    pub fn load(
        folding: &Folding,
        weights: &Weights,
        names: [&str; 3],
        shape: MbConvShape,
        ends: End,
        activation: Activation,
    ) -> Result<Self> {
        let MbConvShape {
            from,
            inner,
            to,
            stride,
        } = shape;
        let [expand, depth, project] = names.map(|name| weights.pp(name));
        Ok(Self {
            expand: folding.pointwise(&expand, [from, inner], ends)?,
            depth: folding.depthwise(&depth, inner, ends)?,
            project: folding.pointwise(&project, [inner, to], End::Norm)?,
            stride,
            activation,
        })
    }

    /// `[B,H,W,from]` to `[B,⌈H/stride⌉,⌈W/stride⌉,to]`, with `residual` of that shape added.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let activated = Epilogue::activation(self.activation);
        let x = self.expand.forward_with(x, &activated)?;
        let x = activated.apply(self.depth.forward_strided(&x, self.stride)?)?;
        let steps = Epilogue {
            residual: residual.map(Residual::Same),
            ..Epilogue::default()
        };
        self.project.forward_with(&x, &steps)
    }
}

impl MbConvShape {
    /// Adds what it costs from `inputs` places on; its vectors are two for a norm, one for a bias.
    pub fn cost(&self, part: &mut Cost, inputs: u64, ends: End) -> u64 {
        let pixels = inputs / (self.stride * self.stride) as u64;
        cost::conv(part, inputs, [self.from, self.inner], 1);
        cost::depthwise(part, [inputs, pixels], self.inner, 3);
        cost::conv(part, pixels, [self.inner, self.to], 1);
        let vectors = match ends {
            End::Norm => 4 * self.inner,
            End::Bias => 2 * self.inner,
        };
        part.parameters += (vectors + 2 * self.to) as u64;
        pixels
    }
}
