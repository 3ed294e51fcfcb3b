//! What one evaluation costs, part by part.

use super::VideoTransformerConfig;
use super::refiner::MLP_RATIO;
use crate::cost::Cost;

impl VideoTransformerConfig {
    /// One evaluation of one clip of `frames` x `height` x `width` latent cells with `words` text tokens: what lies
    /// before the blocks (`x_embedder`, `context_embedder`), both kinds of blocks together, and `proj_out`.
    pub fn step_cost(&self, [frames, height, width]: [usize; 3], words: usize) -> Vec<Cost> {
        let [d, hidden, text, words, pooled] = [
            self.width(),
            self.hidden(),
            self.text_embed_dim,
            words,
            self.pooled_projection_dim,
        ]
        .map(|n| n as u64);
        let tokens = self
            .grid(frames, height, width)
            .iter()
            .map(|n| *n as u64)
            .product::<u64>();
        let all = tokens + words;
        let embedder = |cost: &mut Cost, inputs: u64| {
            cost.linear(1, inputs, d);
            cost.linear(1, d, d);
        };

        let mut patches = Cost::new("x_embedder");
        patches.linear(tokens, self.patch_values(self.in_channels) as u64, d);
        for _ in 0..=usize::from(self.guidance_embeds) {
            embedder(&mut patches, 256);
        }
        embedder(&mut patches, pooled);

        let mut refiner = Cost::new("context_embedder");
        refiner.linear(words, text, d);
        embedder(&mut refiner, 256);
        embedder(&mut refiner, text);
        for _ in 0..self.num_refiner_layers {
            for _ in 0..4 {
                refiner.linear(words, d, d);
            }
            refiner.linear(words, d, MLP_RATIO as u64 * d);
            refiner.linear(words, MLP_RATIO as u64 * d, d);
            refiner.linear(1, d, 2 * d);
            refiner.work(2 * words * words * d, 4 * words * d);
        }

        let mut double = Cost::new("transformer_blocks");
        for rows in [tokens, words] {
            double.linear(1, d, 6 * d);
            for _ in 0..4 {
                double.linear(rows, d, d);
            }
            double.linear(rows, d, hidden);
            double.linear(rows, hidden, d);
        }
        double.work(2 * all * all * d, 4 * all * d);

        let mut single = Cost::new("single_transformer_blocks");
        single.linear(1, d, 3 * d);
        for _ in 0..3 {
            single.linear(all, d, d);
        }
        single.linear(all, d, hidden);
        single.linear(all, d + hidden, d);
        single.work(2 * all * all * d, 4 * all * d);

        let mut output = Cost::new("proj_out");
        output.linear(1, d, 2 * d);
        output.linear(tokens, d, self.patch_values(self.out_channels) as u64);
        vec![
            patches,
            refiner,
            double.repeated(self.num_layers as u64),
            single.repeated(self.num_single_layers as u64),
            output,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame of 544x960 pixels with 402 tokens of text: 37.6 TFLOP by the layers' sizes.
    #[test]
    fn a_published_frame_costs_what_its_layers_say() {
        let config = VideoTransformerConfig {
            in_channels: 33,
            guidance_embeds: false,
            image_condition_type: Some(super::super::ImageCondition::LatentConcat),
            ..VideoTransformerConfig::default()
        };
        let costs = config.step_cost([1, 68, 120], 402);
        let total: u64 = costs.iter().map(|cost| cost.flops).sum();
        assert!((37.5e12..38.3e12).contains(&(total as f64)), "{total}");
    }
}
