//! UViT (arXiv 2209.12152): class and time as tokens beside the patches, and long skips from block to block.

use brisk_nn::ops::{Activation, Residual};
use brisk_nn::{
    Embedding, Init, LayerNorm, Linear, Location, PatchEmbedding, Tensor, Trace, Weights,
    check_finite, from_patches, ops, sinusoid,
};

use super::layers::{FeedForward, SelfAttention};
use super::model::STAGE;
use super::{ClassConditionalConfig, FeedForwardActivation};
use crate::Result;

const EPSILON: f64 = 1e-5;
const START: Init = Init::Normal(0.02);
/// Width of the layers of a time that has some, in widths.
const TIME_RATIO: usize = 4;

#[derive(Debug)]
pub(super) struct UVit {
    patches: PatchEmbedding,
    /// The two layers of a time, where it has some.
    time: Option<[Linear; 2]>,
    classes: Embedding,
    /// `[1,2+N,d]`
    positions: Tensor,
    in_blocks: Vec<Block>,
    mid_block: Block,
    out_blocks: Vec<Block>,
    norm: LayerNorm,
    output: Linear,
    patch: usize,
    location: Location,
}

impl UVit {
    pub fn load(config: &ClassConditionalConfig, weights: &Weights) -> Result<Self> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let blocks = |name: &str, skips: bool| -> Result<Vec<Block>> {
            let weights = weights.pp(name);
            (0..config.depth / 2)
                .map(|index| Block::load(config, skips, &weights.pp(index)))
                .collect()
        };
        let time = match config.mlp_time_embed {
            true => {
                let weights = weights.pp("time_embed");
                let inner = TIME_RATIO * width;
                Some([
                    Linear::load(&weights.pp("0"), width, inner, true, START)?,
                    Linear::load(&weights.pp("2"), inner, width, true, START)?,
                ])
            }
            false => None,
        };
        let table = weights.pp("label_emb.embedding_table");
        let values = patch * patch * config.in_channels;
        let proj = weights.pp("patch_embed.proj");
        Ok(Self {
            patches: PatchEmbedding::load(&proj, config.in_channels, patch, width)?,
            time,
            classes: Embedding::load(&table, config.class_rows(), width, Init::Normal(1.0))?,
            positions: weights.get("pos_embed", &[1, config.tokens(), width], START)?,
            in_blocks: blocks("in_blocks", false)?,
            mid_block: Block::load(config, false, &weights.pp("mid_block"))?,
            out_blocks: blocks("out_blocks", true)?,
            norm: LayerNorm::load(&weights.pp("norm"), width, EPSILON, true)?,
            output: Linear::load(&weights.pp("decoder_pred"), width, values, true, START)?,
            patch,
            location: weights.location().clone(),
        })
    }

    /// `trace` sees `patch_embed`, `tokens`, every block with its parts `attn` and `mlp`, and `decoder_pred`.
    pub fn forward(
        &self,
        latent: &Tensor,
        times: &Tensor,
        classes: &[u32],
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let grid = self.patches.grid(latent)?;
        let patches = self.patches.forward(&latent.to(&self.location)?)?;
        trace.see("patch_embed", &patches);
        let (_, count, width) = patches.dims3()?;
        let mut time = sinusoid(times, width)?.to(&self.location)?;
        if let Some([first, second]) = &self.time {
            time = second.forward(&ops::silu(&first.forward(&time)?)?)?;
        }
        let class = self.classes.forward(classes)?.unsqueeze(1)?;
        let tokens = Tensor::cat(&[class, time.unsqueeze(1)?, patches], 1)?;
        let mut x = tokens.broadcast_add(&self.positions)?;
        trace.detail("tokens", &x);
        let mut kept = Vec::with_capacity(self.in_blocks.len());
        for (index, block) in self.in_blocks.iter().enumerate() {
            x = block.named(&format!("in_blocks.{index}"), &x, None, trace)?;
            kept.push(x.clone());
        }
        x = self.mid_block.named("mid_block", &x, None, trace)?;
        for (index, block) in self.out_blocks.iter().enumerate() {
            let skip = kept.pop();
            x = block.named(&format!("out_blocks.{index}"), &x, skip.as_ref(), trace)?;
        }
        let x = self.output.forward(&self.norm.forward(&x)?)?;
        trace.see("decoder_pred", &x);
        let others = x.dim(1)? - count;
        let x = x.narrow(1, others, count)?.contiguous()?;
        check_finite(&x, STAGE, "decoder_pred")?;
        from_patches(&x, grid, self.patch)?.beside(latent)
    }
}

#[derive(Debug)]
struct Block {
    /// Of what comes in and what was kept, side by side.
    skip: Option<Linear>,
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn load(config: &ClassConditionalConfig, skips: bool, weights: &Weights) -> Result<Self> {
        let width = config.hidden_size;
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, EPSILON, true);
        let activation = match config.activation {
            FeedForwardActivation::Gelu => Activation::GeluErf,
            FeedForwardActivation::Silu => Activation::Silu,
        };
        let skip = match skips {
            true => {
                let weights = weights.pp("skip_linear");
                Some(Linear::load(&weights, 2 * width, width, true, START)?)
            }
            false => None,
        };
        Ok(Self {
            skip,
            norm1: norm("norm1")?,
            attention: SelfAttention::load(config, &weights.pp("attn"), START)?,
            norm2: norm("norm2")?,
            feed_forward: FeedForward::load(config, &weights.pp("mlp"), activation, START)?,
        })
    }

    /// [`Self::forward`] under the block's name.
    fn named(
        &self,
        name: &str,
        x: &Tensor,
        skip: Option<&Tensor>,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let x = self.forward(x, skip, &mut trace.within(name))?;
        check_finite(&x, STAGE, name)?;
        trace.see(name, &x);
        Ok(x)
    }

    fn forward(&self, x: &Tensor, skip: Option<&Tensor>, trace: &mut Trace) -> Result<Tensor> {
        let joined = match (&self.skip, skip) {
            (Some(layer), Some(skip)) => Some(layer.forward_wide(&Tensor::cat(&[x, skip], 2)?)?),
            _ => None,
        };
        let x = joined.as_ref().unwrap_or(x);
        let h = self.norm1.forward(x)?;
        let x = self.attention.forward(&h, Residual::Same(x), trace)?;
        let h = self.norm2.forward(&x)?;
        self.feed_forward.forward(&h, Residual::Same(&x), trace)
    }
}
