//! What a pass over some tokens costs, part by part.

use super::LanguageModelConfig;
use crate::cost::Cost;

impl LanguageModelConfig {
    /// A pass over `tokens` tokens that see `keys` keys, with the logits of `rows` of them: `qkv`,
    /// `attention` (with the projection after it), `mlp` and `head`, of all layers together. The
    /// embedding is a gather and not counted; of experts those are read that tokens go to, at most.
    pub fn pass_cost(&self, tokens: usize, keys: usize, rows: usize) -> Vec<Cost> {
        let [d, f, t, s, n] =
            [self.hidden_size, self.intermediate_size, tokens, keys, rows].map(|size| size as u64);
        let (q, kv) = (self.query_width() as u64, self.key_width() as u64);
        let layers = self.num_layers as u64;

        let mut qkv = Cost::new("qkv");
        qkv.linear(t, d, q);
        qkv.linear(t, d, kv);
        qkv.linear(t, d, kv);
        let mut attention = Cost::new("attention");
        attention.work(2 * q * t * s, 2 * t * q + 2 * s * kv);
        attention.linear(t, q, d);

        let mut mlp = Cost::new("mlp");
        for layer in 0..self.num_layers {
            match &self.experts {
                Some(experts) if self.has_experts(layer) => {
                    let chosen = t * experts.per_token as u64;
                    let read = chosen.min(experts.count as u64);
                    let inner = experts.inner as u64;
                    let mut routed = Cost::new("");
                    for (from, to) in [(d, inner), (d, inner), (inner, d)] {
                        routed.linear(chosen, from, to);
                    }
                    routed.parameters = read * 3 * d * inner;
                    mlp.add(&routed);
                    if let Some(shared) = experts.shared_inner {
                        gated(&mut mlp, t, d, shared as u64);
                    }
                }
                _ => gated(&mut mlp, t, d, f),
            }
        }
        let mut head = Cost::new("head");
        head.linear(n, d, self.vocab_size as u64);
        vec![qkv.repeated(layers), attention.repeated(layers), mlp, head]
    }
}

fn gated(cost: &mut Cost, tokens: u64, width: u64, inner: u64) {
    cost.linear(tokens, width, inner);
    cost.linear(tokens, width, inner);
    cost.linear(tokens, inner, width);
}
