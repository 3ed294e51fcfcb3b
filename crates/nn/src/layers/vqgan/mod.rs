//! The convolutional encoder and decoder of VQGAN (arXiv 2012.09841) and its descendants.
//!
//! ```text
//! picture [B,H,W,colours]                       latent [B,H/r,W/r,latent], r = 2^(levels - 1)
//!   conv_in                                       conv_in
//!   level 0 .. deepest: blocks, downsample        mid: block, attention, block
//!   mid: block, attention, block                  level deepest .. 0: blocks, upsample
//!   norm_out, SiLU, conv_out                      norm_out, SiLU, conv_out
//! ```
//!
//! Levels may have an attention after each block; the decoder has one block a level more than the encoder.

mod attention;
mod decoder;
mod encoder;
mod middle;
mod res_block;

pub use attention::VqganProjections;
pub use decoder::VqganDecoder;
pub use encoder::VqganEncoder;

use super::{ConvOptions, GroupNorm};
use crate::error::{Error, Result};
use crate::weights::Weights;

/// Groups of channels that are normalised together.
const GROUPS: usize = 32;

/// What an encoder and a decoder are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VqganOptions {
    /// Channels of the picture.
    pub colours: usize,
    /// Channels of the latent.
    pub latent: usize,
    /// Channels behind the encoder's first convolution.
    pub base: usize,
    /// Channels of each level, full resolution first.
    pub widths: Vec<usize>,
    /// Residual blocks of each level of the encoder.
    pub blocks: usize,
    /// Whether the blocks of a level are followed by attention, level by level.
    pub attention: Vec<bool>,
    /// How attentions hold their projections.
    pub projections: VqganProjections,
}

impl VqganOptions {
    /// Pixels of picture per position of latent, along each axis.
    pub fn ratio(&self) -> usize {
        1 << self.widths.len().saturating_sub(1)
    }

    /// Refuses widths that the norms cannot group, and levels that nothing is said of.
    fn check(&self) -> Result<()> {
        let groups = |width: &usize| *width > 0 && width.is_multiple_of(GROUPS);
        let fits = self.attention.len() == self.widths.len()
            && !self.widths.is_empty()
            && self.widths.iter().chain([&self.base]).all(groups);
        match fits {
            true => Ok(()),
            false => Err(Error::Config(format!(
                "levels of {:?} channels from {}, attention in {:?}: expected multiples of {GROUPS}, and an \
                 answer for each level",
                self.widths, self.base, self.attention
            ))),
        }
    }

    /// Channels of the deepest level.
    fn deepest(&self) -> usize {
        self.widths.last().copied().unwrap_or(0)
    }
}

/// The norm before every convolution.
fn norm(weights: &Weights, channels: usize) -> Result<GroupNorm> {
    GroupNorm::load(weights, GROUPS, channels, 1e-6)
}

/// A convolution that halves a map which was padded behind.
const HALVING: ConvOptions = ConvOptions {
    stride: 2,
    padding: 0,
    ..ConvOptions::SAME_3X3
};
