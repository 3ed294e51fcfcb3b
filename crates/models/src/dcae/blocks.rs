//! The kinds of blocks of a stage, and what they share: convolutions, and norms at the end of branches.

use brisk_nn::ops::{self, Epilogue, Residual};
use brisk_nn::{ConvOptions, FoldedBatchNorm, Result, RmsNorm, RmsNormKind, Tensor, Weights};

use super::config::{Activation, BlockKind, StageConfig};
use super::efficient_vit::EfficientVitBlock;
use super::pass::Pass;
use super::res_block::ResBlock;
use crate::Error;
use crate::rows::{in_place, rows_of};

/// Epsilon of every norm of the autoencoder.
pub(super) const NORM_EPSILON: f64 = 1e-5;

impl Activation {
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => ops::silu(x),
            Activation::Relu => ops::relu(x),
        }
    }

    pub(super) fn kind(self) -> ops::Activation {
        match self {
            Activation::Silu => ops::Activation::Silu,
            Activation::Relu => ops::Activation::Relu,
        }
    }
}

/// Options of the autoencoder's 3x3 convolutions.
pub(super) fn conv3x3(stride: usize, bias: bool) -> ConvOptions {
    ConvOptions {
        stride,
        bias,
        ..ConvOptions::SAME_3X3
    }
}

/// A batch norm with its stored statistics. It always follows a linear map, into which it is folded.
pub(super) fn batch_norm(
    weights: &Weights,
    channels: usize,
    name: &str,
) -> Result<FoldedBatchNorm> {
    if weights.is_trainable() {
        return Err(Error::Config(format!(
            "{name}: batch_norm can't be trained, only run with its stored statistics; set \
             decoder_norm_types to \"rms_norm\" in the config of a model to train"
        )));
    }
    FoldedBatchNorm::load(weights, channels, NORM_EPSILON)
}

/// The RMS norm over channels that ends most residual branches.
pub(super) fn rms_norm(weights: &Weights, channels: usize) -> Result<RmsNorm> {
    RmsNorm::load(weights, channels, NORM_EPSILON, RmsNormKind::WeightBias)
}

/// The end of a residual branch, as steps after its last layer: the norm, then the addition of `x`.
pub(super) fn end_of_branch<'a>(norm: Option<&'a RmsNorm>, x: &'a Tensor) -> Epilogue<'a> {
    Epilogue {
        activation: None,
        norm: norm.map(RmsNorm::step),
        residual: Some(Residual::Same(x)),
    }
}

/// A block of a stage; `[B,H,W,C]` to the same.
pub(super) enum Block {
    Res(Box<ResBlock>),
    EfficientVit(Box<EfficientVitBlock>),
}

impl Block {
    pub(super) fn load(
        stage: &StageConfig,
        head_dim: usize,
        weights: &Weights,
        name: &str,
    ) -> Result<Self> {
        Ok(match stage.block {
            BlockKind::ResBlock => Block::Res(Box::new(ResBlock::load(stage, weights, name)?)),
            BlockKind::EfficientVit => {
                let block = EfficientVitBlock::load(stage, head_dim, weights, name)?;
                Block::EfficientVit(Box::new(block))
            }
        })
    }

    pub(super) fn forward(&self, x: &Tensor, name: &str, pass: &mut Pass) -> Result<Tensor> {
        match self {
            Block::Res(block) => block.forward(x),
            Block::EfficientVit(block) => block.forward(x, name, pass),
        }
    }

    /// As [`forward`](Self::forward) of a block that is not trained, `rows` rows at a time. The output
    /// takes the place of the input, so that only one map is held.
    pub(super) fn forward_strips(&self, x: Tensor, rows: usize) -> Result<Tensor> {
        match self {
            Block::Res(block) => in_place(x, rows, ResBlock::HALO, |seen, inner| {
                rows_of(&block.forward(seen)?, &inner)
            }),
            Block::EfficientVit(block) => block.forward_strips(x, rows),
        }
    }

    /// Rows of input above and below that a row of output depends on, `None` for all.
    pub(super) fn halo(&self) -> Option<usize> {
        match self {
            Block::Res(_) => Some(ResBlock::HALO),
            Block::EfficientVit(_) => None,
        }
    }
}
