//! Parameters, and what one evaluation computes, part by part.

use super::ClassConditionalConfig;
use super::config::FREQUENCY_CHANNELS;
use crate::cost::Cost;

impl ClassConditionalConfig {
    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let [width, inner, patch, channels, outputs] = [
            self.hidden_size,
            self.inner(),
            self.patch_size,
            self.in_channels,
            self.output_channels(),
        ]
        .map(|n| n as u64);
        let layer = |inputs: u64, outputs: u64| inputs * outputs + outputs;
        let area = patch * patch;
        let tables = (self.class_rows() + self.tokens()) as u64 * width;
        let bias = if self.qkv_bias { 3 * width } else { 0 };
        let branches = 3 * width * width
            + bias
            + layer(width, width)
            + layer(width, inner)
            + layer(inner, width);
        let shared = layer(area * channels, width) + tables + layer(width, area * outputs);
        let depth = self.depth as u64;
        if self.is_dit() {
            let time = layer(FREQUENCY_CHANNELS as u64, width) + layer(width, width);
            let blocks = depth * (branches + layer(width, 6 * width));
            return shared + time + blocks + layer(width, 2 * width);
        }
        let time = match self.mlp_time_embed {
            true => layer(width, 4 * width) + layer(4 * width, width),
            false => 0,
        };
        let blocks = (depth + 1) * (branches + 4 * width);
        let skips = depth / 2 * layer(2 * width, width);
        shared + time + blocks + skips + 2 * width
    }

    /// One evaluation of one latent: what lies before the blocks, each kind of blocks together, and the output.
    pub fn step_cost(&self) -> Vec<Cost> {
        let [width, inner, tokens, inputs, outputs, cells] = [
            self.hidden_size,
            self.inner(),
            self.tokens(),
            self.patch_size * self.patch_size * self.in_channels,
            self.patch_size * self.patch_size * self.output_channels(),
            self.grid() * self.grid(),
        ]
        .map(|n| n as u64);
        let block = |name: &str| {
            let mut cost = Cost::new(name);
            cost.linear(tokens, width, 3 * width);
            cost.linear(tokens, width, width);
            cost.linear(tokens, width, inner);
            cost.linear(tokens, inner, width);
            cost.work(2 * tokens * tokens * width, 4 * tokens * width);
            cost
        };
        let depth = self.depth as u64;
        if self.is_dit() {
            let mut before = Cost::new("x_embedder");
            before.linear(cells, inputs, width);
            before.linear(1, FREQUENCY_CHANNELS as u64, width);
            before.linear(1, width, width);
            let mut blocks = block("blocks");
            blocks.linear(1, width, 6 * width);
            let mut last = Cost::new("final_layer");
            last.linear(1, width, 2 * width);
            last.linear(tokens, width, outputs);
            return vec![before, blocks.repeated(depth), last];
        }
        let mut before = Cost::new("patch_embed");
        before.linear(cells, inputs, width);
        if self.mlp_time_embed {
            before.linear(1, width, 4 * width);
            before.linear(1, 4 * width, width);
        }
        let mut joined = block("out_blocks");
        joined.linear(tokens, 2 * width, width);
        let mut last = Cost::new("decoder_pred");
        last.linear(tokens, width, outputs);
        vec![
            before,
            block("in_blocks").repeated(depth / 2),
            block("mid_block"),
            joined.repeated(depth / 2),
            last,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::published::named_config;

    /// Millions of parameters that are trained, and billions of multiply-adds of one evaluation as the authors' README lists
    /// them; the README's number of USiT-H is that of UViT-H on another autoencoder.
    #[test]
    fn published_networks_have_the_published_sizes() {
        for (name, millions, billions) in [
            ("f32c32-in-1.0-uvit-s", 44.79, 12.27),
            ("f32c32-in-1.0-dit-xl", 674.89, 118.68),
            ("f32c32-in-1.0-sit-xl", 674.85, 118.68),
            ("f32c32-in-1.0-uvit-h", 500.87, 133.25),
            ("f64c128-in-1.0-uvit-h", 500.87, 33.25),
            ("f32c32-in-1.0-uvit-2b", 1580.40, 414.91),
            ("f64c128-in-1.0-uvit-2b", 1580.40, 104.65),
            ("f32c32-in-1.0-usit-h", 500.87, 133.25),
        ] {
            let config = named_config(&format!("dc-ae-{name}-in-512px")).unwrap();
            // A DiT's positions stay as they are.
            let fixed = match config.is_dit() {
                true => config.tokens() * config.hidden_size,
                false => 0,
            };
            let found = (config.parameters() - fixed as u64) as f64 / 1e6;
            assert!((found - millions).abs() < 0.006, "{name}: {found}");
            let flops: u64 = config.step_cost().iter().map(|cost| cost.flops).sum();
            let found = flops as f64 / 2e9;
            assert!((found / billions - 1.0).abs() < 2e-3, "{name}: {found}");
        }
    }
}
