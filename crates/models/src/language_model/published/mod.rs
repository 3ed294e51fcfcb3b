//! The `config.json` files of the families, each as its authors write it.

mod llada;
mod llama;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use self::llada::LladaFile;
use self::llama::LlamaFile;
use super::config::{Family, LanguageModelConfig};
use crate::config::{checked, parse};
use crate::{Error, Result};

impl LanguageModelConfig {
    /// Reads a published `config.json`, of whichever family; `label` names the file in messages.
    ///
    /// # Errors
    /// Malformed JSON, an architecture this crate does not run, a key that is missing, of the
    /// wrong type or not honoured; the message names the key as the file spells it.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: Map<String, Value> = parse(bytes, label)?;
        Self::read(bytes, label, family(&file), &file)
    }

    /// Reads the `config.json` of a Llama model that writes token by token.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn llama(bytes: &[u8], label: &str) -> Result<Self> {
        let file: Map<String, Value> = parse(bytes, label)?;
        let kind = file.get("model_type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind != "llama") {
            return Err(Error::Config(format!(
                "{label}: `model_type` is {}; expected \"llama\"",
                file["model_type"]
            )));
        }
        Self::read(bytes, label, Some(Family::Llama), &file)
    }

    fn read(
        bytes: &[u8],
        label: &str,
        family: Option<Family>,
        file: &Map<String, Value>,
    ) -> Result<Self> {
        let config = match family {
            Some(Family::Llada) => parse::<LladaFile>(bytes, label)?.config(),
            Some(family) => parse::<LlamaFile>(bytes, label)?.config(family),
            None => {
                return Err(Error::Config(format!(
                    "{label}: `model_type` {} with `architectures` {} is no diffusion language model that \
                     brisk runs; expected one of {}",
                    file.get("model_type").unwrap_or(&Value::Null),
                    file.get("architectures").unwrap_or(&Value::Null),
                    Self::MODEL_TYPES.join(", "),
                )));
            }
        };
        let config = config.map_err(|error| Error::Config(format!("{label}: {error}")))?;
        checked(config.validate(), label)?;
        Ok(config)
    }
}

impl LanguageModelConfig {
    /// Reads the `config.json` of a Qwen2 whose body encodes texts, of Qwen2-VL's language half too: rows of
    /// text have the same place in all of its three position axes.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn qwen2_from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: Map<String, Value> = parse(bytes, label)?;
        let kind = file.get("model_type").and_then(Value::as_str);
        if let Some(kind) = kind
            && !QWEN2_TYPES.contains(&kind)
        {
            return Err(Error::Config(format!(
                "{label}: `model_type` is {kind:?}; expected {}",
                QWEN2_TYPES.join(" or ")
            )));
        }
        let config = parse::<LlamaFile>(bytes, label)?.config(Family::Qwen2);
        let config = config.map_err(|error| Error::Config(format!("{label}: {error}")))?;
        checked(config.validate(), label)?;
        Ok(config)
    }
}

const QWEN2_TYPES: [&str; 2] = ["qwen2", "qwen2_vl"];

/// Keys of all families that are read, or known to change nothing.
pub(super) const KEYS: &[&str] = &[
    "activation_type",
    "alibi",
    "attention_bias",
    "attention_layer_norm",
    "attention_layer_norm_with_affine",
    "bd_size",
    "bias_for_layer_norm",
    "block_group_size",
    "block_length",
    "block_size",
    "block_type",
    "clip_qkv",
    "d_model",
    "dense_intermediate_size",
    "embedding_size",
    "eos_token_id",
    "expert_intermediate_size",
    "first_k_dense_replace",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "include_bias",
    "include_qkv_bias",
    "input_emb_norm",
    "intermediate_size",
    "layer_norm_type",
    "layer_norm_with_affine",
    "layer_types",
    "mask_token_id",
    "max_position_embeddings",
    "max_sequence_length",
    "max_window_layers",
    "mlp_bias",
    "mlp_hidden_size",
    "mlp_ratio",
    "model_type",
    "moe_intermediate_size",
    "moe_layer_freq",
    "moe_router_bias_update_speed",
    "moe_router_enable_expert_bias",
    "moe_router_score_function",
    "multi_query_attention",
    "n_group",
    "n_heads",
    "n_kv_heads",
    "n_layers",
    "norm_head",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_nextn_predict_layers",
    "num_shared_experts",
    "partial_rotary_factor",
    "qk_layernorm",
    "rms_norm_eps",
    "rope",
    "rope_full_precision",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "router_dtype",
    "scale_logits",
    "score_function",
    "shared_expert_intermediate_size",
    "sliding_window",
    "tie_word_embeddings",
    "topk_group",
    "use_bias",
    "use_qk_norm",
    "use_qkv_bias",
    "use_sliding_window",
    "vocab_size",
    "weight_tying",
];

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

/// One id or several.
#[derive(Debug, Default)]
struct Ids(Vec<u32>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a token id or a list of them")
            }

            fn visit_unit<E>(self) -> std::result::Result<Ids, E> {
                Ok(Ids::default())
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> std::result::Result<Ids, E> {
                let small = u32::try_from(id).map_err(|_| {
                    E::invalid_value(serde::de::Unexpected::Unsigned(id), &"a token id")
                })?;
                Ok(Ids(vec![small]))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(Ids(ids))
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

/// The error of a key whose value is not computed here.
fn refuse(key: &str, found: &str, expected: &str) -> Error {
    Error::Config(format!(
        "`{key}` {found} is not supported; expected {expected}"
    ))
}

fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Config(format!("`{key}` is missing")))
}
