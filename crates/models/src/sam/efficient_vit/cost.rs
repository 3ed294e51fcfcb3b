//! What EfficientViT-SAM's image encoder weighs and costs.

use super::EfficientVitConfig;
use super::blocks::Attending;
use crate::cost::Cost;
use crate::sam::cost::conv;

impl EfficientVitConfig {
    /// Parts of a pass over `height`×`width` pixels to `grid`² cells: `stages.{i}.op_list.{j}`,
    /// `neck.middle.op_list.{i}`, of which the first has the maps' sum with it, and `neck`.
    pub(in crate::sam) fn cost(&self, height: usize, width: usize, grid: usize) -> Vec<Cost> {
        let mut places = (height / 2 * (width / 2)) as u64;
        let mut parts = Vec::new();
        let mut maps = Vec::new();
        for stage in 0..self.stages() {
            let name = |block: usize| format!("stages.{stage}.op_list.{block}");
            let mut first = Cost::new(name(0));
            match stage {
                0 => {
                    conv(&mut first, places, [3, self.width_list[0]], 3);
                    first.parameters += 2 * self.width_list[0] as u64;
                }
                _ => places = self.halving(stage).cost(&mut first, places),
            }
            parts.push(first);
            for block in 1..=self.depth_list[stage] {
                let mut part = Cost::new(name(block));
                match self.block_list[stage].neighbours() {
                    None => {
                        self.local(stage).cost(&mut part, places);
                    }
                    Some(neighbours) => {
                        let widths = [self.width_list[stage], self.inner(stage, false)];
                        Attending::cost(&mut part, places, widths, self.qkv_dim, neighbours);
                    }
                }
                parts.push(part);
            }
            maps.push(places);
        }
        let cells = (grid * grid) as u64;
        let mut sum = Cost::default();
        for stage in self.summed() {
            conv(
                &mut sum,
                maps[stage],
                [self.width_list[stage], self.head_width],
                1,
            );
            sum.parameters += 2 * self.head_width as u64;
            sum.activations += cells * self.head_width as u64;
        }
        for block in 0..self.head_depth {
            let mut part = Cost::new(format!("neck.middle.op_list.{block}"));
            part.add(&std::mem::take(&mut sum));
            self.middle().cost(&mut part, cells);
            parts.push(part);
        }
        let mut neck = Cost::new("neck");
        neck.add(&sum);
        let (from, to) = (self.head_width as u64, self.output_channels as u64);
        neck.linear(cells, from, to);
        // A bias, and a norm.
        neck.parameters += 3 * to;
        parts.push(neck);
        parts
    }
}
