//! LLaDA's own keys, which descend from OLMo's.

use serde::Deserialize;
use serde_json::Value;

use super::super::config::{Attention, Family, LanguageModelConfig, QueryKeyNorm};
use super::{Ids, refuse};
use crate::{Error, Result};

/// The keys with the defaults of the reference's class. Those describe GPT-2, so a file that leaves
/// much out is no LLaDA; sizes without a default here have to be said.
#[derive(Debug, Deserialize)]
pub(super) struct LladaFile {
    d_model: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: Option<usize>,
    multi_query_attention: Option<bool>,
    mlp_hidden_size: Option<usize>,
    #[serde(default = "four")]
    mlp_ratio: usize,
    vocab_size: usize,
    /// Null: as many as `vocab_size`.
    #[serde(default = "embedding_size")]
    embedding_size: Option<usize>,
    #[serde(default = "rope_theta")]
    rope_theta: f64,
    #[serde(default = "rms_norm_eps")]
    rms_norm_eps: f64,
    #[serde(default = "max_sequence_length")]
    max_sequence_length: usize,
    #[serde(default = "yes")]
    weight_tying: bool,
    #[serde(default = "yes")]
    include_bias: bool,
    include_qkv_bias: Option<bool>,
    #[serde(default)]
    attention_layer_norm: bool,
    #[serde(default = "one")]
    block_group_size: usize,
    #[serde(default = "activation_type")]
    activation_type: String,
    #[serde(default = "block_type")]
    block_type: String,
    #[serde(default = "layer_norm_type")]
    layer_norm_type: String,
    #[serde(default = "yes")]
    layer_norm_with_affine: bool,
    #[serde(default = "yes")]
    attention_layer_norm_with_affine: bool,
    /// Null: as `include_bias`.
    bias_for_layer_norm: Option<bool>,
    #[serde(default)]
    rope: bool,
    /// The reference's class has no such key; who writes one means another model.
    rope_scaling: Option<Value>,
    #[serde(default)]
    alibi: bool,
    #[serde(default)]
    input_emb_norm: bool,
    #[serde(default)]
    scale_logits: bool,
    mask_token_id: Option<u32>,
    #[serde(default)]
    eos_token_id: Ids,
}

fn one() -> usize {
    1
}

fn four() -> usize {
    4
}

fn yes() -> bool {
    true
}

fn embedding_size() -> Option<usize> {
    Some(50_304)
}

fn rope_theta() -> f64 {
    10_000.0
}

fn rms_norm_eps() -> f64 {
    1e-5
}

fn max_sequence_length() -> usize {
    1024
}

fn activation_type() -> String {
    "swiglu".into()
}

fn block_type() -> String {
    "sequential".into()
}

fn layer_norm_type() -> String {
    "default".into()
}

impl LladaFile {
    pub(super) fn config(self) -> Result<LanguageModelConfig> {
        for (key, value, expected) in [
            ("activation_type", &self.activation_type, "silu"),
            ("block_type", &self.block_type, "llama"),
            ("layer_norm_type", &self.layer_norm_type, "rms"),
        ] {
            if value != expected {
                return Err(refuse(key, &format!("{value:?}"), &format!("{expected:?}")));
            }
        }
        if let Some(scaling) = &self.rope_scaling {
            return Err(refuse("rope_scaling", &scaling.to_string(), "null"));
        }
        let norm_bias = self.bias_for_layer_norm.unwrap_or(self.include_bias);
        for (key, found, expected) in [
            ("rope", self.rope, true),
            ("alibi", self.alibi, false),
            ("input_emb_norm", self.input_emb_norm, false),
            ("scale_logits", self.scale_logits, false),
            ("layer_norm_with_affine", self.layer_norm_with_affine, true),
            (
                "attention_layer_norm_with_affine",
                self.attention_layer_norm_with_affine,
                true,
            ),
            ("bias_for_layer_norm", norm_bias, false),
        ] {
            if found != expected {
                return Err(refuse(key, &found.to_string(), &expected.to_string()));
            }
        }
        if self.n_heads == 0 || !self.d_model.is_multiple_of(self.n_heads) {
            return Err(Error::Config(format!(
                "`n_heads` {} does not divide `d_model` {}",
                self.n_heads, self.d_model
            )));
        }
        let key_heads = match (self.n_kv_heads, self.multi_query_attention) {
            (Some(count), multi_query) => {
                let implied = multi_query.map(|one| if one { 1 } else { self.n_heads });
                if implied.is_some_and(|implied| implied != count) {
                    return Err(Error::Config(format!(
                        "`n_kv_heads` {count} contradicts `multi_query_attention` {}",
                        multi_query == Some(true)
                    )));
                }
                count
            }
            (None, Some(true)) => 1,
            (None, _) => self.n_heads,
        };
        let head_dim = self.d_model / self.n_heads;
        Ok(LanguageModelConfig {
            family: Family::Llada,
            vocab_size: self.embedding_size.unwrap_or(self.vocab_size),
            hidden_size: self.d_model,
            intermediate_size: self
                .mlp_hidden_size
                .unwrap_or_else(|| self.mlp_ratio.saturating_mul(self.d_model)),
            num_layers: self.n_layers,
            num_heads: self.n_heads,
            num_key_value_heads: key_heads,
            head_dim,
            rotary_dim: head_dim,
            rope_theta: self.rope_theta,
            rope_scaling: 1.0,
            rms_norm_eps: self.rms_norm_eps,
            qkv_bias: self.include_bias || self.include_qkv_bias == Some(true),
            output_bias: self.include_bias,
            mlp_bias: self.include_bias,
            query_key_norm: if self.attention_layer_norm {
                QueryKeyNorm::Projection
            } else {
                QueryKeyNorm::None
            },
            tied: self.weight_tying,
            attention: Attention::Full,
            shifted: false,
            experts: None,
            expert_layers: Vec::new(),
            block_group_size: self.block_group_size,
            context: self.max_sequence_length,
            mask_token_id: self.mask_token_id,
            eos_token_ids: self.eos_token_id.0,
        })
    }
}
