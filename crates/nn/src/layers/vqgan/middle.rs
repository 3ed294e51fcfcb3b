//! What stands between the levels and the latent, and one level's blocks.

use super::attention::MapAttention;
use super::res_block::ResBlock;
use super::{VqganOptions, VqganProjections};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::trace::Trace;
use crate::weights::Weights;

/// A residual block, an attention and a residual block at the deepest level.
#[derive(Clone, Debug)]
pub(super) struct Middle {
    first: ResBlock,
    attention: MapAttention,
    second: ResBlock,
}

impl Middle {
    /// Reads `block_1`, `attn_1` and `block_2`.
    pub fn load(weights: &Weights, channels: usize, names: VqganProjections) -> Result<Self> {
        Ok(Self {
            first: ResBlock::load(&weights.pp("block_1"), channels, channels)?,
            attention: MapAttention::load(&weights.pp("attn_1"), channels, names)?,
            second: ResBlock::load(&weights.pp("block_2"), channels, channels)?,
        })
    }

    /// `trace` sees `block_1`, `attn_1`, `block_2`.
    pub fn forward(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let x = self.first.forward(x)?;
        trace.see("block_1", &x);
        let x = self.attention.forward(&x)?;
        trace.see("attn_1", &x);
        let x = self.second.forward(&x)?;
        trace.see("block_2", &x);
        Ok(x)
    }
}

/// Residual blocks, each with an attention behind it where the level has them.
#[derive(Clone, Debug)]
pub(super) struct Level {
    blocks: Vec<(ResBlock, Option<MapAttention>)>,
}

impl Level {
    /// Reads `block.{i}` and `attn.{i}` of `count` blocks from `inputs` channels to those of level `level`.
    pub fn load(
        weights: &Weights,
        options: &VqganOptions,
        level: usize,
        count: usize,
        inputs: usize,
    ) -> Result<Self> {
        let width = options.widths[level];
        let blocks = (0..count).map(|index| {
            let from = if index == 0 { inputs } else { width };
            let block = ResBlock::load(&weights.pp("block").pp(index), from, width)?;
            let attention = match options.attention[level] {
                true => {
                    let weights = weights.pp("attn").pp(index);
                    Some(MapAttention::load(&weights, width, options.projections)?)
                }
                false => None,
            };
            Ok((block, attention))
        });
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    /// `trace` sees `block.{i}` and `attn.{i}`.
    pub fn forward(&self, mut x: Tensor, trace: &mut Trace) -> Result<Tensor> {
        for (index, (block, attention)) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            trace.see(&format!("block.{index}"), &x);
            if let Some(attention) = attention {
                x = attention.forward(&x)?;
                trace.see(&format!("attn.{index}"), &x);
            }
        }
        Ok(x)
    }
}
