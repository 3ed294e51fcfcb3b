//! What TinyViT weighs and costs.

use super::TinyVitConfig;
use super::config::STAGES;
use crate::cost::Cost;
use crate::sam::cost::{conv, depthwise};
use crate::sam::folding::End;
use crate::sam::neck::Neck;

impl TinyVitConfig {
    /// Parts of a pass over `height`×`width` pixels: `patch_embed`, `layers.{i}.blocks.{j}`, `layers.{i}.downsample`,
    /// `neck`.
    pub(in crate::sam) fn cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut size = [height / 4, width / 4];
        let pixels = |size: [usize; 2]| (size[0] * size[1]) as u64;
        let first = self.embed_dims[0];
        let mut patches = Cost::new("patch_embed");
        conv(&mut patches, 4 * pixels(size), [3, first / 2], 3);
        conv(&mut patches, pixels(size), [first / 2, first], 3);
        patches.parameters += 2 * (first / 2 + first) as u64;
        let mut parts = vec![patches];
        for stage in 0..STAGES {
            for block in 0..self.depths[stage] {
                let mut part = Cost::new(format!("layers.{stage}.blocks.{block}"));
                match stage {
                    0 => {
                        self.convolution().cost(&mut part, pixels(size), End::Norm);
                    }
                    _ => self.attention_block(&mut part, stage, size),
                }
                parts.push(part);
            }
            if let Some(merging) = self.merging(stage) {
                let mut part = Cost::new(format!("layers.{stage}.downsample"));
                merging.cost(&mut part, pixels(size), End::Norm);
                size = size.map(|side| side / merging.stride);
                parts.push(part);
            }
        }
        let last = self.embed_dims[STAGES - 1];
        parts.push(Neck::cost(pixels(size), last, self.output_channels));
        parts
    }

    fn attention_block(&self, part: &mut Cost, stage: usize, [height, width]: [usize; 2]) {
        let (wide, inner) = (self.embed_dims[stage], self.inner(stage) as u64);
        let (cells, channels) = ((height * width) as u64, wide as u64);
        let side = self.window_sizes[stage];
        let places = (side * side) as u64;
        let windows = (height.div_ceil(side) * width.div_ceil(side)) as u64;
        part.linear(cells, channels, 3 * channels);
        part.linear(cells, channels, channels);
        let queries = windows * places;
        part.work(2 * queries * places * channels, 4 * queries * channels);
        depthwise(part, [cells, cells], wide, 3);
        part.linear(cells, channels, inner);
        part.linear(cells, inner, channels);
        // Biases of linear layers, two norms, one batch norm, the numbers of distances.
        part.parameters += 5 * channels + inner + 6 * channels;
        part.parameters += self.num_heads[stage] as u64 * places;
    }
}
