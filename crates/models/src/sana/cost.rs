//! What one evaluation of the transformer costs, part by part.

use super::SanaConfig;
use crate::cost::Cost;

impl SanaConfig {
    /// One evaluation for `batch` latents of `height` x `width` cells with `text_tokens` valid
    /// caption tokens each: `embeddings`, then `attn1`, `attn2` and `ff` of all blocks together,
    /// then `proj_out`.
    pub fn step_cost(
        &self,
        batch: usize,
        height: usize,
        width: usize,
        text_tokens: usize,
    ) -> Vec<Cost> {
        let [d, cross, h, batch] =
            [self.width(), self.cross_width(), self.hidden(), batch].map(|n| n as u64);
        let grid = (height / self.patch_size) * (width / self.patch_size);
        let n = batch * grid as u64;
        let text = batch * text_tokens as u64;
        let blocks = self.num_layers as u64;
        let patch = (self.patch_size * self.patch_size) as u64;
        let head = self.attention_head_dim as u64;

        let mut embeddings = Cost::new("embeddings");
        embeddings.linear(n, patch * self.in_channels as u64, d);
        for _ in 0..=usize::from(self.guidance_embeds) {
            embeddings.linear(batch, 256, d);
            embeddings.linear(batch, d, d);
        }
        embeddings.linear(batch, d, 6 * d);

        let mut attention = Cost::new("attn1");
        for _ in 0..4 {
            attention.linear(n, d, d);
        }
        attention.work(2 * d * (head + 1) * n, 4 * d * n);

        let mut crossing = Cost::new("attn2");
        crossing.linear(n, d, cross);
        crossing.linear(n, cross, d);
        let pairs = n * text_tokens as u64;
        crossing.work(2 * pairs * cross, 2 * n * cross + 2 * text * cross);

        let mut feed_forward = Cost::new("ff");
        feed_forward.linear(n, d, 2 * h);
        feed_forward.work(18 * h * n, 4 * h * n);
        feed_forward.parameters += 18 * h;
        feed_forward.linear(n, h, d);

        let mut output = Cost::new("proj_out");
        output.linear(n, d, patch * self.output_channels() as u64);
        vec![
            embeddings,
            attention.repeated(blocks),
            crossing.repeated(blocks),
            feed_forward.repeated(blocks),
            output,
        ]
    }

    /// What is computed once a prompt, for `batch` captions of `tokens` tokens: the projection and
    /// every block's keys and values.
    pub fn caption_cost(&self, batch: usize, tokens: usize) -> Cost {
        let [d, cross, rows] = [self.width(), self.cross_width(), batch * tokens].map(|n| n as u64);
        let mut cost = Cost::new("caption");
        cost.linear(rows, self.caption_channels as u64, d);
        cost.linear(rows, d, d);
        for _ in 0..2 * self.num_layers {
            cost.linear(rows, d, cross);
        }
        cost
    }

    /// Floating-point operations (two a multiply-add) of one evaluation; see
    /// [`SanaConfig::step_cost`]. What is computed once a caption is counted only where
    /// `caption_cached` is false.
    pub fn flops(
        &self,
        batch: usize,
        height: usize,
        width: usize,
        text_tokens: usize,
        caption_cached: bool,
    ) -> u64 {
        let parts = self.step_cost(batch, height, width, text_tokens);
        let step: u64 = parts.iter().map(|part| part.flops).sum();
        if caption_cached {
            step
        } else {
            step + self.caption_cost(batch, text_tokens).flops
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(heads: usize, layers: usize, cross_heads: usize, cross_dim: usize) -> SanaConfig {
        SanaConfig {
            num_attention_heads: heads,
            num_layers: layers,
            num_cross_attention_heads: cross_heads,
            cross_attention_head_dim: cross_dim,
            cross_attention_dim: heads * 32,
            ..SanaConfig::default()
        }
    }

    /// Counted elsewhere for 300 text tokens, in 10⁹ multiply-adds a block; the last without the
    /// caption's keys and values.
    #[test]
    fn parts_match_the_counted_ones() {
        let small = config(36, 28, 16, 72);
        for (side, attention, feed_forward, total) in
            [(16, 1.38, 2.56, 158.0), (32, 5.52, 10.25, 561.0)]
        {
            let parts = small.step_cost(1, side, side, 300);
            let giga = |name: &str| {
                let part = parts.iter().find(|part| part.name == name).unwrap();
                part.flops as f64 / 2e9 / 28.0
            };
            assert!(
                (giga("attn1") - attention).abs() < 0.01,
                "{}",
                giga("attn1")
            );
            assert!((giga("ff") - feed_forward).abs() < 0.01, "{}", giga("ff"));
            let found = small.flops(1, side, side, 300, false) as f64 / 2e9;
            assert!((found - total).abs() < 2.0, "{side}: {found} not {total}");
        }
    }

    #[test]
    fn weights_that_are_read_are_those_of_the_model() {
        let config = SanaConfig::default();
        let mut read = Cost::sum("all", &config.step_cost(1, 8, 8, 10));
        read.add(&config.caption_cost(1, 10));
        let (found, all) = (read.parameters as f64, config.parameters() as f64);
        // Biases, norms and tables are not counted.
        assert!(found < all && found > 0.998 * all, "{found} of {all}");
    }
}
