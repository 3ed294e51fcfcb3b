//! What the ViT weighs and costs.

use super::VisionConfig;
use crate::cost::Cost;
use crate::sam::neck::Neck;

impl VisionConfig {
    /// Parts of a pass over `height`×`width` patches: `patch_embed`, `layers.{i}`, `neck`.
    pub(in crate::sam) fn cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let config = self;
        let wide = config.hidden_size as u64;
        let cells = (height * width) as u64;
        let mut parts = Vec::new();
        let mut patches = Cost::new("patch_embed");
        let values = (config.num_channels * config.patch_size * config.patch_size) as u64;
        patches.linear(cells, values, wide);
        patches.parameters += wide;
        if config.use_abs_pos {
            patches.parameters += (config.grid() * config.grid()) as u64 * wide;
        }
        parts.push(patches);
        for layer in 0..config.num_hidden_layers {
            let mut part = Cost::new(format!("layers.{layer}"));
            let window = config.window(layer);
            let [rows, columns] = [height, width].map(|side| window.unwrap_or(side));
            let windows = window.map_or(1, |side| height.div_ceil(side) * width.div_ceil(side));
            let (places, queries) = ((rows * columns) as u64, (windows * rows * columns) as u64);
            part.linear(cells, wide, 3 * wide);
            part.linear(cells, wide, wide);
            part.linear(cells, wide, config.inner() as u64);
            part.linear(cells, config.inner() as u64, wide);
            part.work(2 * queries * places * wide, 4 * queries * wide);
            let table = window.unwrap_or_else(|| config.grid());
            if config.use_rel_pos {
                let distances = (2 * rows + 2 * columns - 2) as u64;
                part.work(
                    queries * wide * distances,
                    queries * distances * config.num_attention_heads as u64,
                );
                part.parameters += 2 * ((2 * table - 1) * config.head()) as u64;
            }
            let biases = 3 * wide * u64::from(config.qkv_bias) + 2 * wide + config.inner() as u64;
            part.parameters += biases + 4 * wide;
            parts.push(part);
        }
        parts.push(Neck::cost(
            cells,
            config.hidden_size,
            config.output_channels,
        ));
        parts
    }

    /// Values that a pass holds at its widest.
    pub(in crate::sam) fn widest(&self) -> u64 {
        // Queries, keys, values and their windows, or the widened map of the feed-forward network, with the stream.
        let wide = (6 * self.hidden_size).max(self.inner() + 3 * self.hidden_size) as u64;
        (self.grid() as u64).pow(2) * wide
    }
}
