//! The `config.json` files of the families, each as its authors write it.

use brisk_nn::{ExpertOptions, Scoring};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::{Attention, Family, LanguageModelConfig, QueryKeyNorm};
use crate::config::parse;
use crate::{Error, Result};

/// Positions of a block where the file does not say.
const FAST_DLLM2_BLOCK: usize = 32;
const SDAR_BLOCK: usize = 4;
const LLADA2_BLOCK: usize = 32;

/// The family that the keys of a file speak of.
fn family(file: &Map<String, Value>) -> Option<Family> {
    let kind = file.get("model_type").and_then(Value::as_str).unwrap_or("");
    let classes: Vec<&str> = file
        .get("architectures")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let is = |class: &str| classes.contains(&class);
    // Released LLaDA-MoE files call themselves "llada": the experts tell.
    let experts = file.get("num_experts").is_some_and(|n| !n.is_null());
    if kind == "llada2_moe" || is("LLaDA2MoeModelLM") {
        Some(Family::Llada2)
    } else if kind == "lladamoe" || is("LLaDAMoEModelLM") || (kind == "llada" && experts) {
        Some(Family::LladaMoe)
    } else if kind == "llada" || is("LLaDAModelLM") {
        Some(Family::Llada)
    } else if kind == "Dream" || is("DreamModel") {
        Some(Family::Dream)
    } else if kind == "Fast_dLLM_Qwen" || is("Fast_dLLM_QwenForCausalLM") {
        Some(Family::FastDllm2)
    } else if kind == "sdar" || is("SDARForCausalLM") {
        Some(Family::Sdar)
    } else if kind.starts_with("a2d-") {
        Some(Family::A2d)
    } else {
        None
    }
}

pub(super) fn read(
    file: &Map<String, Value>,
    bytes: &[u8],
    label: &str,
) -> Result<LanguageModelConfig> {
    let at = |error: Error| Error::Config(format!("{label}: {error}"));
    match family(file) {
        Some(Family::Llada) => parse::<LladaFile>(bytes, label)?.config().map_err(at),
        Some(family) => parse::<LlamaFile>(bytes, label)?.config(family).map_err(at),
        None => Err(Error::Config(format!(
            "{label}: `model_type` {} with `architectures` {} is no diffusion language model that brisk \
             runs; expected one of {}",
            file.get("model_type").unwrap_or(&Value::Null),
            file.get("architectures").unwrap_or(&Value::Null),
            LanguageModelConfig::MODEL_TYPES.join(", "),
        ))),
    }
}

/// One id or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Ids {
    fn list(ids: Option<Self>) -> Vec<u32> {
        match ids {
            None => Vec::new(),
            Some(Self::One(id)) => vec![id],
            Some(Self::Several(ids)) => ids,
        }
    }
}

fn refuse(key: &str, found: &str, expected: &str) -> Error {
    Error::Config(format!(
        "`{key}` {found} is not supported; expected {expected}"
    ))
}

fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Config(format!("`{key}` is missing")))
}

/// LLaDA's own keys, which descend from OLMo's. Keys without a value here are those whose class
/// default describes another model, so the file has to say them.
#[derive(Debug, Deserialize)]
struct LladaFile {
    d_model: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: Option<usize>,
    multi_query_attention: Option<bool>,
    mlp_hidden_size: Option<usize>,
    #[serde(default = "four")]
    mlp_ratio: usize,
    vocab_size: usize,
    embedding_size: Option<usize>,
    #[serde(default = "llada_theta")]
    rope_theta: f64,
    #[serde(default = "llada_eps")]
    rms_norm_eps: f64,
    #[serde(default = "llada_context")]
    max_sequence_length: usize,
    #[serde(default)]
    weight_tying: bool,
    #[serde(default)]
    include_bias: bool,
    include_qkv_bias: Option<bool>,
    #[serde(default)]
    attention_layer_norm: bool,
    #[serde(default = "one")]
    block_group_size: usize,
    activation_type: Option<String>,
    block_type: Option<String>,
    layer_norm_type: Option<String>,
    layer_norm_with_affine: Option<bool>,
    attention_layer_norm_with_affine: Option<bool>,
    bias_for_layer_norm: Option<bool>,
    rope: Option<bool>,
    #[serde(default)]
    alibi: bool,
    #[serde(default)]
    input_emb_norm: bool,
    #[serde(default)]
    scale_logits: bool,
    mask_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
}

fn one() -> usize {
    1
}

fn four() -> usize {
    4
}

fn llada_theta() -> f64 {
    500_000.0
}

fn llada_eps() -> f64 {
    1e-5
}

fn llada_context() -> usize {
    4096
}

impl LladaFile {
    fn config(self) -> Result<LanguageModelConfig> {
        for (key, value, expected) in [
            ("activation_type", &self.activation_type, "silu"),
            ("block_type", &self.block_type, "llama"),
            ("layer_norm_type", &self.layer_norm_type, "rms"),
        ] {
            if let Some(found) = value
                && found != expected
            {
                return Err(refuse(key, &format!("{found:?}"), &format!("{expected:?}")));
            }
        }
        let norm_bias = self.bias_for_layer_norm.unwrap_or(self.include_bias);
        for (key, found, expected) in [
            ("rope", self.rope.unwrap_or(true), true),
            ("alibi", self.alibi, false),
            ("input_emb_norm", self.input_emb_norm, false),
            ("scale_logits", self.scale_logits, false),
            (
                "layer_norm_with_affine",
                self.layer_norm_with_affine.unwrap_or(true),
                true,
            ),
            (
                "attention_layer_norm_with_affine",
                self.attention_layer_norm_with_affine.unwrap_or(true),
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
            (Some(count), _) => count,
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
            eos_token_ids: Ids::list(self.eos_token_id),
        })
    }
}

/// The keys of Llama, Qwen and Bailing configurations.
#[derive(Debug, Deserialize)]
struct LlamaFile {
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
    clip_qkv: Option<f64>,
    mask_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
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
    // Both.
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    routed_scaling_factor: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    partial_rotary_factor: Option<f64>,
}

impl LlamaFile {
    fn config(self, family: Family) -> Result<LanguageModelConfig> {
        self.check()?;
        let qwen2 =
            matches!(family, Family::Dream | Family::FastDllm2) || self.model_type == "a2d-qwen2";
        let qwen3 = family == Family::Sdar || self.model_type == "a2d-qwen3";
        if family == Family::A2d && !(qwen2 || qwen3 || self.model_type == "a2d-llama") {
            return Err(refuse(
                "model_type",
                &format!("{:?}", self.model_type),
                "a2d-qwen2, a2d-qwen3 or a2d-llama",
            ));
        }
        let head_dim = match self.head_dim {
            Some(dim) => dim,
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
            _ => head_dim,
        };
        let block = self.bd_size.or(self.block_size).or(self.block_length);
        let attention = match family {
            Family::FastDllm2 => Attention::BlockCausal(block.unwrap_or(FAST_DLLM2_BLOCK)),
            Family::Sdar => Attention::BlockCausal(block.unwrap_or(SDAR_BLOCK)),
            Family::Llada2 => Attention::BlockCausal(block.unwrap_or(LLADA2_BLOCK)),
            Family::A2d => block.map_or(Attention::Full, Attention::BlockCausal),
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
                None | Some(0) => self.num_attention_heads,
                Some(count) => count,
            },
            head_dim,
            rotary_dim,
            rope_theta: required("rope_theta", theta)?,
            rms_norm_eps: self.rms_norm_eps,
            qkv_bias,
            output_bias,
            mlp_bias: self.model_type == "a2d-llama" && self.mlp_bias.unwrap_or(false),
            query_key_norm: if norm {
                QueryKeyNorm::Head
            } else {
                QueryKeyNorm::None
            },
            tied: self.tie_word_embeddings,
            attention,
            shifted: matches!(family, Family::Dream | Family::FastDllm2),
            experts,
            expert_layers,
            block_group_size: 1,
            context: self.max_position_embeddings,
            mask_token_id: self.mask_token_id,
            eos_token_ids: Ids::list(self.eos_token_id),
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
        if let Some(limit) = self.clip_qkv {
            return Err(refuse("clip_qkv", &limit.to_string(), "null"));
        }
        if self.norm_head == Some(true) {
            return Err(refuse("norm_head", "true", "false"));
        }
        let kind = self
            .rope_parameters
            .as_ref()
            .and_then(|p| p.rope_type.as_deref());
        if let Some(kind) = kind
            && kind != "default"
        {
            return Err(refuse(
                "rope_parameters.rope_type",
                &format!("{kind:?}"),
                "\"default\"",
            ));
        }
        if let Some(scaling) = &self.rope_scaling
            && !scaling.is_null()
        {
            let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
            if kind.and_then(Value::as_str) != Some("default") {
                return Err(refuse("rope_scaling", &scaling.to_string(), "null"));
            }
        }
        Ok(())
    }

    /// Experts and the layers that have them.
    fn experts(&self, family: Family) -> Result<(Option<ExpertOptions>, Vec<bool>)> {
        let layers = self.num_hidden_layers.min(1 << 12);
        let scale = self.routed_scaling_factor.unwrap_or(1.0) as f32;
        match family {
            Family::LladaMoe => {
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
