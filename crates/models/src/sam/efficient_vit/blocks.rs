//! Blocks of EfficientViT-SAM's image encoder.

use brisk_nn::ops::{Activation, Epilogue, Residual};
use brisk_nn::{
    Conv2d, Init, Linear, LiteMla, LiteMlaProjection, LiteMlaScale, Tensor, Trace, Weights,
};

use super::EfficientVitBlock;
use crate::Result;
use crate::cost::Cost;
use crate::sam::cost;
use crate::sam::folding::{End, Folding};
use crate::sam::mb_conv::{MbConv, MbConvShape};

pub(super) const FOLDING: Folding = Folding {
    conv: "conv",
    norm: "norm",
    eps: super::model::EPS,
};
pub(super) const ACTIVATION: Activation = Activation::GeluTanh;
const MB_LAYERS: [&str; 3] = ["inverted_conv", "depth_conv", "point_conv"];

/// A block of convolutions: its kind, widths and stride, and what ends all but its last convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalShape {
    pub kind: EfficientVitBlock,
    pub widths: MbConvShape,
    pub ends: End,
}

/// A block of convolutions.
#[derive(Debug)]
pub(super) enum Local {
    Res([Conv2d; 2]),
    Fused(Conv2d, Linear),
    Mb(Box<MbConv>),
}

impl Local {
    pub fn load(weights: &Weights, shape: LocalShape) -> Result<Self> {
        let LocalShape { kind, widths, ends } = shape;
        let MbConvShape {
            from,
            inner,
            to,
            stride,
        } = widths;
        Ok(match kind {
            EfficientVitBlock::Res => Self::Res([
                FOLDING.conv(&weights.pp("conv1"), [from, inner], stride, ends)?,
                FOLDING.conv(&weights.pp("conv2"), [inner, to], 1, End::Norm)?,
            ]),
            EfficientVitBlock::FusedMb => Self::Fused(
                FOLDING.conv(&weights.pp("spatial_conv"), [from, inner], stride, ends)?,
                FOLDING.pointwise(&weights.pp("point_conv"), [inner, to], End::Norm)?,
            ),
            _ => Self::Mb(Box::new(MbConv::load(
                &FOLDING, weights, MB_LAYERS, widths, ends, ACTIVATION,
            )?)),
        })
    }

    /// `[B,H,W,from]` to the block's size and width, with `residual` added.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let activated = Epilogue::activation(ACTIVATION);
        let end = Epilogue {
            residual: residual.map(Residual::Same),
            ..Epilogue::default()
        };
        match self {
            Self::Res([first, second]) => {
                second.forward_with(&first.forward_with(x, &activated)?, &end)
            }
            Self::Fused(spatial, point) => {
                point.forward_with(&spatial.forward_with(x, &activated)?, &end)
            }
            Self::Mb(block) => block.forward(x, residual),
        }
    }
}

impl LocalShape {
    /// Adds what it costs from `inputs` places on; gives the places that it leaves.
    pub fn cost(&self, part: &mut Cost, inputs: u64) -> u64 {
        let MbConvShape {
            from,
            inner,
            to,
            stride,
        } = self.widths;
        let last = match self.kind {
            EfficientVitBlock::Res => 3,
            EfficientVitBlock::FusedMb => 1,
            _ => return self.widths.cost(part, inputs, self.ends),
        };
        let pixels = inputs / (stride * stride) as u64;
        cost::conv(part, pixels, [from, inner], 3);
        cost::conv(part, pixels, [inner, to], last);
        let vectors = if self.ends == End::Norm {
            2 * inner
        } else {
            inner
        };
        part.parameters += (vectors + 2 * to) as u64;
        pixels
    }
}

/// Attention, then a block of convolutions, each added to what it sees.
#[derive(Debug)]
pub(super) struct Attending {
    attention: LiteMla,
    local: Local,
}

impl Attending {
    /// Reads `context_module` and `local_module`.
    pub fn load(
        weights: &Weights,
        [width, inner]: [usize; 2],
        head_dim: usize,
        neighbours: usize,
    ) -> Result<Self> {
        let heads = [width / head_dim, head_dim];
        let context = weights.pp("context_module").pp("main");
        let projection = context.pp("qkv").pp("conv");
        let projection =
            Linear::load_pointwise(&projection, width, 3 * width, false, Init::KaimingUniform)?;
        let scale = context.pp("aggreg").pp(0);
        let scale = LiteMlaScale::load(&scale.pp(0), &scale.pp(1), heads, neighbours)?;
        let to_out = FOLDING.pointwise(&context.pp("proj"), [2 * width, width], End::Norm)?;
        let attention = LiteMla::new(
            heads,
            LiteMlaProjection::Fused(projection),
            vec![scale],
            to_out,
            None,
        );
        let local = Local::load(
            &weights.pp("local_module").pp("main"),
            Self::local([width, inner]),
        )?;
        Ok(Self { attention, local })
    }

    /// The block of convolutions.
    fn local([width, inner]: [usize; 2]) -> LocalShape {
        LocalShape {
            kind: EfficientVitBlock::Mb,
            widths: MbConvShape {
                from: width,
                inner,
                to: width,
                stride: 1,
            },
            ends: End::Bias,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward_residual(x, &mut Trace::none())?;
        self.local.forward(&x, Some(&x))
    }

    /// Adds what one costs over so many places.
    pub fn cost(
        part: &mut Cost,
        places: u64,
        [width, inner]: [usize; 2],
        head_dim: usize,
        neighbours: usize,
    ) {
        let (wide, dim) = (width as u64, head_dim as u64);
        part.linear(places, wide, 3 * wide);
        cost::depthwise(part, [places, places], 3 * width, neighbours);
        part.work(places * 3 * wide * dim, places * 6 * wide);
        part.parameters += 3 * wide * dim;
        // Sums over keys and what queries make of them, at both scales.
        part.work(2 * 2 * places * wide * (dim + 1), 2 * places * 4 * wide);
        part.linear(places, 2 * wide, wide);
        part.parameters += 2 * wide;
        Self::local([width, inner]).cost(part, places);
    }
}
