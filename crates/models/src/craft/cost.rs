//! What the network weighs and costs, from its configuration alone.

use super::CraftConfig;
use crate::cost::Cost;

impl CraftConfig {
    /// Parts of a pass over pictures of `height`×`width` pixels: `skips.{i}`, `deep`, `joins.{i}`, `head`.
    pub fn cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut pixels = (height * width) as u64;
        let mut parts = Vec::new();
        let conv =
            |part: &mut Cost, pixels: u64, [from, to]: [usize; 2], kernel: usize, normed: bool| {
                let (from, to, taps) = (from as u64, to as u64, (kernel * kernel) as u64);
                part.linear(pixels, taps * from, to);
                part.activations -= pixels * (taps - 1) * from;
                part.parameters += to + if normed { 2 * to } else { 0 };
            };
        let mut sizes = Vec::new();
        for (index, stage) in self.stages().into_iter().enumerate() {
            let mut part = Cost::new(format!("skips.{index}"));
            for (pooled, widths) in stage {
                if pooled {
                    pixels /= 4;
                }
                conv(&mut part, pixels, widths, 3, true);
            }
            sizes.push(pixels);
            parts.push(part);
        }
        let mut deep = Cost::new("deep");
        let inner = self.deep_channels;
        conv(&mut deep, pixels, [self.stage_channels[4], inner], 3, false);
        conv(&mut deep, pixels, [inner, inner], 1, false);
        parts.push(deep);
        let mut above = inner;
        for (index, (skip, to)) in self
            .skip_channels()
            .into_iter()
            .zip(self.join_channels)
            .enumerate()
        {
            let mut part = Cost::new(format!("joins.{index}"));
            pixels = sizes[sizes.len() - 1 - index];
            conv(&mut part, pixels, [above + skip, 2 * to], 1, true);
            conv(&mut part, pixels, [2 * to, to], 3, true);
            above = to;
            parts.push(part);
        }
        let mut head = Cost::new("head");
        for (widths, kernel) in self.head_layers() {
            conv(&mut head, pixels, widths, kernel, false);
        }
        parts.push(head);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_network_is_counted() {
        let parts = CraftConfig::default().cost(384, 768);
        let sum = |of: fn(&Cost) -> u64| parts.iter().map(of).sum::<u64>();
        // Without means and variances of the norms, which are no parameters.
        assert_eq!(sum(|part| part.parameters), 20_770_466);
        let giga = sum(|part| part.flops) as f64 / 1e9;
        assert!((209.0..210.5).contains(&giga), "{giga}");
    }
}
