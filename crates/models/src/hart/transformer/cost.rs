//! What the transformer weighs and costs, from its configuration alone.

use super::head::FREQUENCY_CHANNELS;
use super::{Codewords, TransformerConfig};
use crate::cost::Cost;

impl TransformerConfig {
    /// Values of the file, for these codewords.
    pub fn parameter_count(&self, codewords: Codewords) -> u64 {
        let [c, d, f] = [self.embed_dim, self.context_dim, self.inner()].map(|n| n as u64);
        let [v, z] = [codewords.count, codewords.width].map(|n| n as u64);
        let sinusoid = FREQUENCY_CHANNELS as u64;
        let linear = |from: u64, to: u64| from * to + to;
        let levels = match self.use_timestep_embed {
            true => linear(sinusoid, c) + linear(c, c),
            false => self.patch_nums.len() as u64 * c,
        };
        let factors = if self.attn_l2_norm {
            self.num_heads as u64
        } else {
            0
        };
        let block = c + 3 * c * c + 2 * c + factors + linear(c, c) + 3 * c * f;
        let context = linear(d, c) + if self.use_context_norm { d } else { 0 };
        let heads = c + linear(c, 2 * c) + linear(c, v) + c;
        context
            + linear(z, c)
            + levels
            + self.depth as u64 * block
            + heads
            + self.head_parameters(codewords)
    }

    /// Those of the diffusion head.
    pub fn head_parameters(&self, codewords: Codewords) -> u64 {
        let [c, w, z] = [self.embed_dim, self.diff_width, codewords.width].map(|n| n as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let embeddings = linear(FREQUENCY_CHANNELS as u64, w) + linear(w, w);
        let block = 2 * w + 2 * linear(w, w) + linear(w, 3 * w);
        let last = linear(w, 2 * w) + linear(w, 2 * z);
        embeddings + linear(c, w) + linear(z, w) + self.diff_depth as u64 * block + last
    }

    /// Parts of a pass over the scales for one text: `context_embed`, `word_embed`, `attn.qkv_proj`,
    /// `attn.attention`, `attn`, `ffn`, `head`. With `guided`, the rows without a text are counted too, whose
    /// text is one token.
    pub fn pass_cost(&self, codewords: Codewords, guided: bool) -> Vec<Cost> {
        let [c, d, f, l] = [
            self.embed_dim,
            self.context_dim,
            self.inner(),
            self.context_token,
        ]
        .map(|n| n as u64);
        let [v, z] = [codewords.count, codewords.width].map(|n| n as u64);
        let later = self
            .patch_nums
            .iter()
            .skip(1)
            .map(|side| (side * side) as u64);
        let (mut places, mut pairs) = (0, 0);
        for count in later {
            places += count;
            pairs += count * (l + places);
        }
        let [text, rows, pairs] = match guided {
            false => [l, l + places, l * l + pairs],
            true => [l + 1, l + 1 + 2 * places, l * l + l + 2 * pairs],
        };
        let branches = if guided { 2 } else { 1 };
        let mut context = Cost::new("context_embed");
        context.linear(text, d, c);
        let mut words = Cost::new("word_embed");
        words.linear(places, z, c);
        let mut projection = Cost::new("attn.qkv_proj");
        projection.linear(rows, c, 3 * c);
        let mut attention = Cost::new("attn.attention");
        attention.work(2 * c * pairs, 4 * c * rows);
        let mut output = Cost::new("attn");
        output.linear(rows, c, c);
        let mut mlp = Cost::new("ffn");
        mlp.linear(rows, c, f);
        mlp.linear(rows, c, f);
        mlp.linear(rows, f, c);
        let mut head = Cost::new("head");
        head.linear(branches * (1 + places), c, v);
        let depth = self.depth as u64;
        let blocks = [projection, attention, output, mlp].map(|part| part.repeated(depth));
        let mut parts = vec![context, words];
        parts.extend(blocks);
        parts.push(head);
        parts
    }

    /// `places` through the diffusion head once, `diffusion_head`.
    pub fn head_cost(&self, codewords: Codewords, places: usize) -> Cost {
        let [c, w, z, n] =
            [self.embed_dim, self.diff_width, codewords.width, places].map(|n| n as u64);
        let mut cost = Cost::new("diffusion_head");
        cost.linear(n, c, w);
        cost.linear(n, z, w);
        for _ in 0..self.diff_depth {
            cost.linear(n, w, 3 * w);
            cost.linear(n, w, w);
            cost.linear(n, w, w);
        }
        cost.linear(n, w, 2 * w);
        cost.linear(n, w, 2 * z);
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_transformer_is_counted() {
        let config = TransformerConfig {
            depth: 24,
            embed_dim: 1536,
            num_heads: 24,
            context_token: 300,
            context_dim: 1536,
            patch_nums: vec![1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64],
            use_timestep_embed: true,
            use_context_norm: true,
            ..TransformerConfig::default()
        };
        let codewords = Codewords {
            count: 4096,
            width: 32,
        };
        assert_eq!(config.parameter_count(codewords), 732_399_168);
        assert_eq!(config.head_parameters(codewords), 36_585_536);
        let parts = config.pass_cost(codewords, false);
        let tera = |name: &str| {
            let named = parts.iter().filter(|part| part.name == name);
            named.map(|part| part.flops).sum::<u64>() as f64 / 2e12
        };
        assert!((tera("attn.attention") - 4.41).abs() < 0.01);
        let linear = tera("attn.qkv_proj") + tera("attn") + tera("ffn");
        assert!((linear - 6.62).abs() < 0.01, "{linear}");
    }
}
