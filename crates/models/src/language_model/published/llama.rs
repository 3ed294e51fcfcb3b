//! The keys of Llama, Qwen and Bailing configurations.

use brisk_nn::{ExpertOptions, Scoring};
use serde::Deserialize;
use serde_json::Value;

use super::super::config::{Attention, Family, LanguageModelConfig, QueryKeyNorm};
use super::{Ids, refuse, required};
use crate::{Error, Result};

/// Positions of a block where the file does not say.
const FAST_DLLM2_BLOCK: usize = 32;
const SDAR_BLOCK: usize = 4;
const LLADA2_BLOCK: usize = 32;
/// Channels of a head where a Qwen3 file does not say.
const QWEN3_HEAD_DIM: usize = 128;
/// Base of the rotary frequencies where a Llama file does not say.
const LLAMA_THETA: f64 = 10_000.0;
/// Largest number that positions are divided by.
const LARGEST_SCALING: f64 = 1024.0;

/// The keys of Llama, Qwen and Bailing configurations.
#[derive(Debug, Deserialize)]
pub(super) struct LlamaFile {
    #[serde(default)]
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<Value>,
    partial_rotary_factor: Option<f64>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    clip_qkv: Option<f64>,
    mask_token_id: Option<u32>,
    #[serde(default)]
    eos_token_id: Ids,
    // Block-causal models.
    bd_size: Option<usize>,
    block_size: Option<usize>,
    block_length: Option<usize>,
    // LLaDA-MoE.
    dense_intermediate_size: Option<usize>,
    expert_intermediate_size: Option<usize>,
    shared_expert_intermediate_size: Option<i64>,
    moe_layer_freq: Option<Vec<u32>>,
    moe_router_enable_expert_bias: Option<bool>,
    moe_router_score_function: Option<String>,
    norm_topk_prob: Option<bool>,
    qk_layernorm: Option<bool>,
    // LLaDA2.
    use_qkv_bias: Option<bool>,
    use_qk_norm: Option<bool>,
    use_bias: Option<bool>,
    norm_head: Option<bool>,
    num_shared_experts: Option<usize>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    moe_intermediate_size: Option<usize>,
    first_k_dense_replace: Option<usize>,
    score_function: Option<String>,
    // Both.
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    routed_scaling_factor: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    factor: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

/// What positions are divided by; none for a way that is not computed here.
fn scaling(family: Family, kind: &str, factor: Option<f64>) -> Option<f64> {
    match (family, kind, factor) {
        // Qwen2-VL's three axes are one for text.
        (_, "default", _) | (Family::Qwen2, "mrope", _) => Some(1.0),
        (Family::Llama, "linear", Some(factor)) => {
            (1.0..=LARGEST_SCALING).contains(&factor).then_some(factor)
        }
        _ => None,
    }
}

fn expected(family: Family) -> &'static str {
    match family {
        Family::Llama => "null, or \"linear\" with a factor from 1 to 1024",
        _ => "null or \"default\"",
    }
}

fn shown(factor: Option<f64>) -> String {
    factor.map_or_else(|| "none".to_owned(), |factor| factor.to_string())
}

impl LlamaFile {
    pub(super) fn config(self, family: Family) -> Result<LanguageModelConfig> {
        self.check()?;
        let rope_scaling = self.rope_scaling(family)?;
        let qwen2 = matches!(family, Family::Dream | Family::FastDllm2 | Family::Qwen2)
            || self.model_type == "a2d-qwen2";
        let qwen3 = family == Family::Sdar || self.model_type == "a2d-qwen3";
        if family == Family::A2d && !(qwen2 || qwen3 || self.model_type == "a2d-llama") {
            return Err(refuse(
                "model_type",
                &format!("{:?}", self.model_type),
                "a2d-qwen2, a2d-qwen3 or a2d-llama",
            ));
        }
        let llama = family == Family::Llama || self.model_type == "a2d-llama";
        let head_dim = match self.head_dim {
            Some(dim) => dim,
            None if qwen3 => QWEN3_HEAD_DIM,
            None if self.num_attention_heads > 0 => self.hidden_size / self.num_attention_heads,
            None => 0,
        };
        let parameters = self.rope_parameters.as_ref();
        let theta = parameters.and_then(|p| p.rope_theta).or(self.rope_theta);
        let partial = parameters
            .and_then(|p| p.partial_rotary_factor)
            .or(self.partial_rotary_factor);
        let rotary_dim = match (family, partial) {
            (Family::Llada2, Some(part)) if part > 0.0 && part <= 1.0 => {
                (head_dim as f64 * part) as usize
            }
            (Family::Llada2, Some(part)) => {
                return Err(refuse(
                    "partial_rotary_factor",
                    &part.to_string(),
                    "a number above 0, at most 1",
                ));
            }
            (Family::Llada2, None) => head_dim / 2,
            (_, Some(part)) if part != 1.0 => {
                return Err(refuse("partial_rotary_factor", &part.to_string(), "1"));
            }
            _ => head_dim,
        };
        let block = self.bd_size.or(self.block_size).or(self.block_length);
        let attention = match family {
            Family::FastDllm2 => Attention::BlockCausal(block.unwrap_or(FAST_DLLM2_BLOCK)),
            Family::Sdar => Attention::BlockCausal(block.unwrap_or(SDAR_BLOCK)),
            Family::Llada2 => Attention::BlockCausal(block.unwrap_or(LLADA2_BLOCK)),
            Family::Qwen2 => Attention::CAUSAL,
            Family::A2d => block.map_or(Attention::Full, Attention::BlockCausal),
            Family::Llama => Attention::CAUSAL,
            _ => Attention::Full,
        };
        let (qkv_bias, output_bias) = match family {
            Family::Llada2 => (
                self.use_qkv_bias.unwrap_or(false),
                self.use_bias.unwrap_or(true),
            ),
            _ if qwen2 => (true, false),
            _ => {
                let bias = self.attention_bias.unwrap_or(false);
                (bias, bias)
            }
        };
        let norm = match family {
            Family::Llada2 => self.use_qk_norm.unwrap_or(true),
            Family::LladaMoe => self.qk_layernorm.unwrap_or(false),
            _ => qwen3,
        };
        let (experts, expert_layers) = self.experts(family)?;
        let dense = match family {
            Family::LladaMoe => self.dense_intermediate_size.filter(|width| *width > 0),
            _ => self.intermediate_size,
        };
        let all_sparse = !expert_layers.is_empty() && expert_layers.iter().all(|sparse| *sparse);
        let dense = match (dense, &experts) {
            (Some(width), _) => width,
            // Nothing reads it where every layer has experts.
            (None, Some(experts)) if all_sparse => experts.inner,
            _ => required("intermediate_size", None)?,
        };
        Ok(LanguageModelConfig {
            family,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: dense,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_key_value_heads: match self.num_key_value_heads {
                Some(0) => self.num_attention_heads,
                Some(count) => count,
                // The other classes' default is a number of one size of model.
                None if llama => self.num_attention_heads,
                None => required("num_key_value_heads", None)?,
            },
            head_dim,
            rotary_dim,
            rope_theta: match family {
                Family::Llama => theta.unwrap_or(LLAMA_THETA),
                _ => required("rope_theta", theta)?,
            },
            rope_scaling,
            rms_norm_eps: self.rms_norm_eps,
            qkv_bias,
            output_bias,
            mlp_bias: llama && self.mlp_bias.unwrap_or(false),
            query_key_norm: if norm {
                QueryKeyNorm::Head
            } else {
                QueryKeyNorm::None
            },
            tied: self.tie_word_embeddings,
            attention,
            shifted: matches!(family, Family::Dream | Family::FastDllm2 | Family::Llama),
            experts,
            expert_layers,
            block_group_size: 1,
            // Files keep the number of positions from before they were stretched.
            context: (self.max_position_embeddings as f64 * rope_scaling) as usize,
            mask_token_id: self.mask_token_id,
            eos_token_ids: self.eos_token_id.0,
        })
    }

    /// Refuses what would change the numbers and is not computed here.
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.hidden_act
            && name != "silu"
        {
            return Err(refuse("hidden_act", &format!("{name:?}"), "\"silu\""));
        }
        if self.use_sliding_window == Some(true) {
            return Err(refuse("use_sliding_window", "true", "false"));
        }
        if let Some(kind) = self
            .layer_types
            .iter()
            .flatten()
            .find(|kind| *kind != "full_attention")
        {
            return Err(refuse(
                "layer_types",
                &format!("{kind:?}"),
                "\"full_attention\" in every layer",
            ));
        }
        if let Some(limit) = self.clip_qkv {
            return Err(refuse("clip_qkv", &limit.to_string(), "null"));
        }
        if self.norm_head == Some(true) {
            return Err(refuse("norm_head", "true", "false"));
        }
        Ok(())
    }

    /// What positions are divided by. Diffusion models are published without.
    fn rope_scaling(&self, family: Family) -> Result<f64> {
        let mut factor = 1.0;
        let parameters = self.rope_parameters.as_ref();
        if let Some(kind) = parameters.and_then(|p| p.rope_type.as_deref()) {
            let given = parameters.and_then(|p| p.factor);
            factor = scaling(family, kind, given).ok_or_else(|| {
                let found = format!("{kind:?} with factor {}", shown(given));
                refuse("rope_parameters.rope_type", &found, expected(family))
            })?;
        }
        if let Some(given) = &self.rope_scaling
            && !given.is_null()
        {
            let kind = given.get("rope_type").or_else(|| given.get("type"));
            let kind = kind.and_then(Value::as_str).unwrap_or("");
            let by = given.get("factor").and_then(Value::as_f64);
            factor = scaling(family, kind, by)
                .ok_or_else(|| refuse("rope_scaling", &given.to_string(), expected(family)))?;
        }
        Ok(factor)
    }

    /// Refuses a router that scores in another way.
    fn check_scores(key: &str, found: &Option<String>, expected: &str) -> Result<()> {
        match found {
            Some(name) if name != expected => {
                Err(refuse(key, &format!("{name:?}"), &format!("{expected:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Experts and the layers that have them.
    fn experts(&self, family: Family) -> Result<(Option<ExpertOptions>, Vec<bool>)> {
        let layers = self.num_hidden_layers.min(1 << 12);
        let scale = self.routed_scaling_factor.unwrap_or(1.0) as f32;
        match family {
            Family::LladaMoe => {
                Self::check_scores(
                    "moe_router_score_function",
                    &self.moe_router_score_function,
                    "softmax",
                )?;
                if self.norm_topk_prob == Some(true) {
                    return Err(refuse("norm_topk_prob", "true", "false"));
                }
                let count = required("num_experts", self.num_experts)?;
                let frequency = match &self.moe_layer_freq {
                    Some(list) if list.len() == layers => {
                        list.iter().map(|frequency| *frequency != 0).collect()
                    }
                    Some(list) => {
                        return Err(Error::Config(format!(
                            "`moe_layer_freq` has {} entries, `num_hidden_layers` is {layers}",
                            list.len()
                        )));
                    }
                    None => vec![true; layers],
                };
                if let Some(width) = self.shared_expert_intermediate_size
                    && width > 0
                {
                    return Err(refuse(
                        "shared_expert_intermediate_size",
                        &width.to_string(),
                        "null (the published models have no shared expert)",
                    ));
                }
                let options = ExpertOptions {
                    count,
                    per_token: required("num_experts_per_tok", self.num_experts_per_tok)?,
                    inner: required("expert_intermediate_size", self.expert_intermediate_size)?,
                    shared_inner: None,
                    scoring: Scoring::Softmax,
                    bias: self.moe_router_enable_expert_bias.unwrap_or(false),
                    groups: 1,
                    groups_kept: 1,
                    normalise: false,
                    // The reference reads this key and never applies it.
                    scale: 1.0,
                };
                Ok((Some(options), frequency))
            }
            Family::Llada2 => {
                Self::check_scores("score_function", &self.score_function, "sigmoid")?;
                if self.moe_router_enable_expert_bias == Some(false) {
                    return Err(refuse("moe_router_enable_expert_bias", "false", "true"));
                }
                let inner = required("moe_intermediate_size", self.moe_intermediate_size)?;
                let shared = self.num_shared_experts.filter(|count| *count > 0);
                let options = ExpertOptions {
                    count: required("num_experts", self.num_experts)?,
                    per_token: required("num_experts_per_tok", self.num_experts_per_tok)?,
                    inner,
                    shared_inner: shared.map(|count| count.saturating_mul(inner)),
                    scoring: Scoring::Sigmoid,
                    bias: true,
                    groups: required("n_group", self.n_group)?,
                    groups_kept: required("topk_group", self.topk_group)?,
                    normalise: true,
                    scale,
                };
                let first = self.first_k_dense_replace.unwrap_or(0);
                Ok((
                    Some(options),
                    (0..layers).map(|index| index >= first).collect(),
                ))
            }
            _ => Ok((None, Vec::new())),
        }
    }
}
