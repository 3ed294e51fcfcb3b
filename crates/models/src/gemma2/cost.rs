//! What encoding a text costs, part by part.

use super::Gemma2Config;
use crate::cost::Cost;

impl Gemma2Config {
    /// Encoding `tokens` new tokens after `before` cached ones, one text: `self_attn` and `mlp`
    /// of all layers together. The embedding is a gather and not counted.
    pub fn encode_cost(&self, tokens: usize, before: usize) -> Vec<Cost> {
        let [d, f, t, p] =
            [self.hidden_size, self.intermediate_size, tokens, before].map(|n| n as u64);
        let q = (self.num_attention_heads * self.head_dim) as u64;
        let kv = (self.num_key_value_heads * self.head_dim) as u64;
        let layers = self.num_hidden_layers as u64;

        let mut attention = Cost::new("self_attn");
        attention.linear(t, d, q);
        attention.linear(t, d, kv);
        attention.linear(t, d, kv);
        let visible = t * p + t * (t + 1) / 2;
        attention.work(2 * q * visible, 2 * t * q + 2 * (t + p) * kv);
        attention.linear(t, q, d);

        let mut mlp = Cost::new("mlp");
        mlp.linear(t, d, f);
        mlp.linear(t, d, f);
        mlp.linear(t, f, d);
        vec![attention.repeated(layers), mlp.repeated(layers)]
    }

    /// Floating-point operations (two a multiply-add) to encode `tokens` new tokens after
    /// `before` cached ones.
    pub fn flops(&self, tokens: usize, before: usize) -> u64 {
        let parts = self.encode_cost(tokens, before);
        parts.iter().map(|part| part.flops).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_costs_the_linear_layers() {
        let config = Gemma2Config::default();
        let parts = config.encode_cost(1, 0);
        let weights: u64 = parts.iter().map(|part| part.parameters).sum();
        // 2 024 million weights in the linear layers of Gemma-2-2b.
        assert_eq!(weights / 1_000_000, 2024);
        let one = config.flops(1, 0) as f64 / 2e9;
        assert!((one - 2.0243).abs() < 0.001, "{one}");
    }

    #[test]
    fn a_cached_beginning_saves_its_own_cost() {
        let config = Gemma2Config::default();
        let whole = config.flops(300, 0);
        assert_eq!(whole, config.flops(200, 0) + config.flops(100, 200));
    }
}
