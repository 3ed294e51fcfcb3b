//! Sizes of the depth transformer, and what they cost.

use crate::config::check_count;
use crate::cost::Cost;
use crate::{Error, Result};

/// Sizes of the depth transformer, named as `rqtransformer` has them where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepthConfig {
    /// Codes of a place (`block_size`, its last number).
    pub depth: usize,
    /// Channels of a codeword (`input_embed_dim_1`).
    pub codeword_width: usize,
    /// Channels of a hidden state of the language model (`input_embed_dim_2`).
    pub hidden_width: usize,
    /// Channels inside.
    pub embed_dim: usize,
    /// Heads.
    pub n_head: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Codes to choose from.
    pub vocab_size: usize,
}

impl DepthConfig {
    pub(in super::super) fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            (
                "rqtransformer.input_embed_dim_2",
                self.hidden_width,
                1 << 20,
            ),
            ("rqtransformer.embed_dim", self.embed_dim, 1 << 16),
            ("rqtransformer.head.block.n_head", self.n_head, 1 << 10),
            ("rqtransformer.head.n_layer", self.n_layer, 1 << 10),
        ] {
            check_count(key, value, limit)?;
        }
        if !self.embed_dim.is_multiple_of(self.n_head) {
            return Err(Error::Config(format!(
                "`rqtransformer.head.block.n_head` {} does not divide `rqtransformer.embed_dim` {}",
                self.n_head, self.embed_dim
            )));
        }
        Ok(())
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let [depth, words, hidden, width, layers, codes] = [
            self.depth,
            self.codeword_width,
            self.hidden_width,
            self.embed_dim,
            self.n_layer,
            self.vocab_size,
        ]
        .map(|size| size as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let block = 4 * linear(width, width)
            + linear(width, 4 * width)
            + linear(4 * width, width)
            + 4 * width;
        depth * width
            + linear(words, width)
            + linear(hidden, width)
            + layers * block
            + 2 * width
            + linear(width, codes)
    }

    /// All depths of `places` places, each depth a pass of its own where `step_by_step`: `input`, `blocks`,
    /// `classifier_mlp`.
    pub fn cost(&self, places: usize, step_by_step: bool) -> Vec<Cost> {
        let [depth, words, hidden, width, layers, codes] = [
            self.depth,
            self.codeword_width,
            self.hidden_width,
            self.embed_dim,
            self.n_layer,
            self.vocab_size,
        ]
        .map(|size| size as u64);
        let places = places as u64;
        let passes = if step_by_step { depth } else { 1 };
        let rows = places * depth / passes;
        let mut input = Cost::new("input");
        input.linear(places, hidden, width);
        input.linear(places * (depth - 1), words, width);
        let mut block = Cost::new("blocks");
        for (from, to) in [
            (width, 3 * width),
            (width, width),
            (width, 4 * width),
            (4 * width, width),
        ] {
            block.linear(rows, from, to);
        }
        let mut attention = Cost::new("blocks");
        attention.work(
            places * depth * (depth + 1) * width,
            4 * places * depth * width,
        );
        let mut blocks = block.repeated(passes);
        blocks.add(&attention);
        let mut head = Cost::new("classifier_mlp");
        head.linear(rows, width, codes);
        vec![input, blocks.repeated(layers), head.repeated(passes)]
    }
}
