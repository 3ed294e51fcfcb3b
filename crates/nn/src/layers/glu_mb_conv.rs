//! The gated inverted-bottleneck convolution of SANA's Mix-FFN and DC-AE's EfficientViT block.

use super::{DepthwiseConv2d, Linear};
use crate::error::Result;
use crate::ops::{self, Activation, Epilogue};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// 1×1 to `2·hidden`, SiLU, depthwise 3×3, split into value and gate, `value·SiLU(gate)`,
/// 1×1 back without bias. No norm and no residual.
#[derive(Clone, Debug)]
pub struct GluMbConv {
    inverted: Linear,
    depth: DepthwiseConv2d,
    point: Linear,
}

impl GluMbConv {
    /// Reads `conv_inverted`, `conv_depth` and `conv_point`.
    pub fn load(weights: &Weights, channels: usize, hidden: usize) -> Result<Self> {
        let (inverted, point) = (weights.pp("conv_inverted"), weights.pp("conv_point"));
        let init = Init::XavierUniform;
        Ok(Self {
            inverted: Linear::load_pointwise(&inverted, channels, 2 * hidden, true, init)?,
            depth: DepthwiseConv2d::load(&weights.pp("conv_depth"), 2 * hidden, 3, true)?,
            point: Linear::load_pointwise(&point, hidden, channels, false, init)?,
        })
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &Epilogue::default())
    }

    /// As [`GluMbConv::forward`], followed by `steps`. Frozen layers run in strips of rows, so that
    /// the wide map between them never exists whole.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        let frozen = (
            self.inverted.pointwise(),
            self.depth.frozen(),
            self.point.pointwise(),
        );
        if let (Some(inverted), Some(depth), Some(point)) = frozen
            && steps.fuses(x)
        {
            return ops::glu_mb_conv(x, inverted, depth, point, steps);
        }
        let activated = Epilogue::activation(Activation::Silu);
        let expanded = self.inverted.forward_with(x, &activated)?;
        let mixed = self.depth.forward_gated_silu(&expanded)?;
        self.point.forward_with(&mixed, steps)
    }
}
