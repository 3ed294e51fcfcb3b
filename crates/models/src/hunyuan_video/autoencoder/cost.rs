//! Parameters, and what encoding and decoding cost, part by part.

use super::VideoAutoencoderConfig;
use crate::cost::Cost;

/// A map on its way: frames, rows and columns.
#[derive(Clone, Copy)]
struct Map([u64; 3]);

impl Map {
    fn places(self) -> u64 {
        self.0.iter().product()
    }

    fn finer(self, [time, space]: [usize; 2]) -> Self {
        let [frames, rows, columns] = self.0;
        let (time, space) = (time as u64, space as u64);
        Self([(frames - 1) * time + 1, rows * space, columns * space])
    }

    fn coarser(self, [time, space]: [usize; 2]) -> Self {
        let [frames, rows, columns] = self.0;
        let (time, space) = (time as u64, space as u64);
        Self([(frames - 1) / time + 1, rows / space, columns / space])
    }
}

fn conv(cost: &mut Cost, places: u64, inputs: usize, outputs: usize, kernel: u64) {
    let (inputs, outputs) = (inputs as u64, outputs as u64);
    cost.linear(places, kernel.pow(3) * inputs, outputs);
    // A linear layer over patches would read each input many times.
    cost.activations -= places * (kernel.pow(3) - 1) * inputs;
}

fn block(cost: &mut Cost, places: u64, inputs: usize, outputs: usize) {
    conv(cost, places, inputs, outputs, 3);
    conv(cost, places, outputs, outputs, 3);
    if inputs != outputs {
        conv(cost, places, inputs, outputs, 1);
    }
}

impl VideoAutoencoderConfig {
    fn middle(&self, map: Map) -> Cost {
        let channels = self.block_out_channels[self.block_out_channels.len() - 1];
        let mut cost = Cost::new("mid_block");
        block(&mut cost, map.places(), channels, channels);
        block(&mut cost, map.places(), channels, channels);
        if self.mid_block_add_attention {
            let [frames, rows, columns] = map.0;
            let width = channels as u64;
            for _ in 0..4 {
                cost.linear(map.places(), width, width);
            }
            // Each frame sees itself and the earlier ones.
            let pairs = (rows * columns).pow(2) * frames * (frames + 1) / 2;
            cost.work(2 * pairs * width, 4 * map.places() * width);
        }
        cost
    }

    /// Decoding one latent of `frames` x `height` x `width` cells.
    pub fn decode_cost(&self, [frames, height, width]: [usize; 3]) -> Vec<Cost> {
        let widths: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        let mut map = Map([frames, height, width].map(|n| n as u64));
        let mut first = Cost::new("conv_in");
        let latent = self.latent_channels;
        conv(&mut first, map.places(), latent, latent, 1);
        conv(&mut first, map.places(), latent, widths[0], 3);
        let mut costs = vec![first, self.middle(map)];
        for (level, outputs) in widths.iter().copied().enumerate() {
            let mut cost = Cost::new(format!("up_blocks.{level}"));
            let mut inputs = widths[level.saturating_sub(1)];
            for _ in 0..=self.layers_per_block {
                block(&mut cost, map.places(), inputs, outputs);
                inputs = outputs;
            }
            let steps = self.steps(level);
            if steps != [1, 1] {
                map = map.finer(steps);
                conv(&mut cost, map.places(), outputs, outputs, 3);
            }
            costs.push(cost);
        }
        let mut last = Cost::new("conv_out");
        let first_width = self.block_out_channels[0];
        conv(&mut last, map.places(), first_width, self.out_channels, 3);
        costs.push(last);
        costs
    }

    /// Encoding one clip of `frames` x `height` x `width` pixels.
    pub fn encode_cost(&self, [frames, height, width]: [usize; 3]) -> Vec<Cost> {
        let widths = &self.block_out_channels;
        let mut map = Map([frames, height, width].map(|n| n as u64));
        let mut first = Cost::new("conv_in");
        conv(&mut first, map.places(), self.in_channels, widths[0], 3);
        let mut costs = vec![first];
        for (level, outputs) in widths.iter().copied().enumerate() {
            let mut cost = Cost::new(format!("down_blocks.{level}"));
            let mut inputs = widths[level.saturating_sub(1)];
            for _ in 0..self.layers_per_block {
                block(&mut cost, map.places(), inputs, outputs);
                inputs = outputs;
            }
            let steps = self.steps(level);
            if steps != [1, 1] {
                map = map.coarser(steps);
                conv(&mut cost, map.places(), outputs, outputs, 3);
            }
            costs.push(cost);
        }
        costs.push(self.middle(map));
        let mut last = Cost::new("conv_out");
        let (deepest, latent) = (widths[widths.len() - 1], 2 * self.latent_channels);
        conv(&mut last, map.places(), deepest, latent, 3);
        conv(&mut last, map.places(), latent, latent, 1);
        costs.push(last);
        costs
    }

    /// Parameters of the encoder and of the decoder.
    pub fn parameters(&self) -> [u64; 2] {
        let matrices = |costs: &[Cost]| costs.iter().map(|part| part.parameters).sum::<u64>();
        let conv = |outputs: usize| outputs as u64;
        let block = |inputs: usize, outputs: usize| {
            let shortcut = if inputs == outputs { 0 } else { outputs };
            (2 * inputs + 2 * outputs + 2 * outputs + shortcut) as u64
        };
        // Biases and norms; the matrices are those that are computed with.
        let vectors = |widths: &[usize], blocks: usize, ends: [usize; 3], last: usize| {
            let mut sum = 0;
            for (level, outputs) in widths.iter().copied().enumerate() {
                let mut inputs = widths[level.saturating_sub(1)];
                for _ in 0..blocks {
                    sum += block(inputs, outputs);
                    inputs = outputs;
                }
                if self.steps(level) != [1, 1] {
                    sum += conv(outputs);
                }
            }
            let deepest = self.block_out_channels[self.block_out_channels.len() - 1];
            let attention = if self.mid_block_add_attention {
                6 * deepest as u64
            } else {
                0
            };
            let ends = ends.iter().map(|outputs| conv(*outputs)).sum::<u64>();
            sum + 2 * block(deepest, deepest) + attention + 2 * last as u64 + ends
        };
        let down = self.block_out_channels.clone();
        let up: Vec<usize> = down.iter().rev().copied().collect();
        let (first, deepest, latent) = (down[0], down[down.len() - 1], self.latent_channels);
        let side = self.spatial_compression_ratio;
        [
            matrices(&self.encode_cost([1, side, side]))
                + vectors(
                    &down,
                    self.layers_per_block,
                    [first, 2 * latent, 2 * latent],
                    deepest,
                ),
            matrices(&self.decode_cost([1, 1, 1]))
                + vectors(
                    &up,
                    self.layers_per_block + 1,
                    [latent, deepest, self.out_channels],
                    first,
                ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_size_has_the_published_number_of_parameters() {
        let config = VideoAutoencoderConfig::default();
        assert_eq!(config.parameters().iter().sum::<u64>(), 246_478_803);
    }

    /// 81 frames of 544x960 by the layers' sizes: 717 TFLOP of convolutions, 61 of attention in whole squares.
    #[test]
    fn a_published_clip_costs_what_its_layers_say() {
        let costs = VideoAutoencoderConfig::default().decode_cost([21, 68, 120]);
        let total: u64 = costs.iter().map(|cost| cost.flops).sum();
        assert!((740e12..790e12).contains(&(total as f64)), "{total}");
    }
}
