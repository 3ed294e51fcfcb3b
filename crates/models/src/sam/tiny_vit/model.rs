//! The network.

use brisk_nn::ops::{Activation, Epilogue};
use brisk_nn::{Conv2d, DepthwiseConv2d, LayerNorm, Tensor, Trace, Weights, check_finite};

use super::TinyVitConfig;
use super::attention::WindowAttention;
use super::config::STAGES;
use crate::Result;
use crate::sam::feed_forward::FeedForward;
use crate::sam::folding::{End, Folding};
use crate::sam::mb_conv::{MbConv, MbConvShape};
use crate::sam::neck::Neck;

/// Epsilon of the blocks' norms.
pub(super) const LAYER_NORM_EPS: f64 = 1e-5;
const FOLDING: Folding = Folding {
    conv: "c",
    norm: "bn",
    eps: 1e-5,
};
const LAYERS: [&str; 3] = ["conv1", "conv2", "conv3"];
const ACTIVATION: Activation = Activation::GeluErf;

/// The network.
#[derive(Debug)]
pub(in crate::sam) struct TinyVit {
    patches: [Conv2d; 2],
    stages: Vec<Stage>,
    neck: Neck,
}

#[derive(Debug)]
struct Stage {
    blocks: Vec<Block>,
    merging: Option<MbConv>,
}

#[derive(Debug)]
enum Block {
    /// Of the first stage.
    Convolution(Box<MbConv>),
    Attention(Box<AttentionBlock>),
}

#[derive(Debug)]
struct AttentionBlock {
    attention: WindowAttention,
    local: DepthwiseConv2d,
    norm: LayerNorm,
    feed_forward: FeedForward,
}

impl TinyVit {
    /// Reads `patch_embed`, `layers` and `neck`.
    pub(in crate::sam) fn load(config: &TinyVitConfig, weights: &Weights) -> Result<Self> {
        Folding::check(weights, "TinyViT")?;
        let width = config.embed_dims[0];
        let patches = weights.pp("patch_embed").pp("seq");
        let patch = |index: usize, widths: [usize; 2]| {
            FOLDING.conv(&patches.pp(index), widths, 2, End::Norm)
        };
        let layers = weights.pp("layers");
        let stages = (0..STAGES).map(|stage| Stage::load(&layers.pp(stage), config, stage));
        let last = config.embed_dims[STAGES - 1];
        Ok(Self {
            patches: [patch(0, [3, width / 2])?, patch(2, [width / 2, width])?],
            stages: stages.collect::<Result<_>>()?,
            neck: Neck::load(&weights.pp("neck"), last, config.output_channels)?,
        })
    }

    /// `[B,S,S,3]` to `[B,S/16,S/16,C]`.
    pub(in crate::sam) fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let [first, second] = &self.patches;
        let x = first.forward_with(pictures, &Epilogue::activation(ACTIVATION))?;
        let mut x = second.forward(&x)?;
        trace.see("patch_embed", &x);
        for (index, stage) in self.stages.iter().enumerate() {
            for (block, layer) in stage.blocks.iter().enumerate() {
                x = layer.forward(&x)?;
                let name = format!("layers.{index}.blocks.{block}");
                check_finite(&x, "image encoder", &name)?;
                trace.see(&name, &x);
            }
            if let Some(merging) = &stage.merging {
                x = merging.forward(&x, None)?;
                trace.see(&format!("layers.{index}.downsample"), &x);
            }
        }
        let x = self.neck.forward(&x)?;
        check_finite(&x, "image encoder", "neck")?;
        trace.see("neck", &x);
        Ok(x)
    }
}

impl TinyVitConfig {
    /// A block of the first stage.
    pub(super) fn convolution(&self) -> MbConvShape {
        let width = self.embed_dims[0];
        MbConvShape {
            from: width,
            inner: self.inner(0),
            to: width,
            stride: 1,
        }
    }

    /// What joins places behind a stage, and widens them.
    pub(super) fn merging(&self, stage: usize) -> Option<MbConvShape> {
        let to = *self.embed_dims.get(stage + 1)?;
        Some(MbConvShape {
            from: self.embed_dims[stage],
            inner: to,
            to,
            stride: Self::stride(stage),
        })
    }
}

impl Stage {
    fn load(weights: &Weights, config: &TinyVitConfig, stage: usize) -> Result<Self> {
        let convolution = |weights: &Weights, shape: MbConvShape| {
            MbConv::load(&FOLDING, weights, LAYERS, shape, End::Norm, ACTIVATION)
        };
        let blocks = (0..config.depths[stage]).map(|block| {
            let weights = weights.pp("blocks").pp(block);
            Ok(match stage {
                0 => Block::Convolution(Box::new(convolution(&weights, config.convolution())?)),
                _ => Block::Attention(Box::new(AttentionBlock::load(&weights, config, stage)?)),
            })
        });
        let merging = config.merging(stage);
        let merging = merging.map(|shape| convolution(&weights.pp("downsample"), shape));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            merging: merging.transpose()?,
        })
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Convolution(block) => {
                Epilogue::activation(ACTIVATION).apply(block.forward(x, Some(x))?)
            }
            Self::Attention(block) => block.forward(x),
        }
    }
}

impl AttentionBlock {
    fn load(weights: &Weights, config: &TinyVitConfig, stage: usize) -> Result<Self> {
        let (width, heads) = (config.embed_dims[stage], config.num_heads[stage]);
        let mlp = weights.pp("mlp");
        Ok(Self {
            attention: WindowAttention::load(
                &weights.pp("attn"),
                width,
                heads,
                config.window_sizes[stage],
            )?,
            local: FOLDING.depthwise(&weights.pp("local_conv"), width, End::Norm)?,
            norm: LayerNorm::load(&mlp.pp("norm"), width, LAYER_NORM_EPS, true)?,
            feed_forward: FeedForward::load(&mlp, width, config.inner(stage), ACTIVATION)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward_residual(x)?;
        let x = self.local.forward(&x)?;
        self.feed_forward.forward(&self.norm.forward(&x)?, &x)
    }
}
