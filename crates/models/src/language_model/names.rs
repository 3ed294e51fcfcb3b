//! How each family names its tensors.

use brisk_nn::{ExpertNames, GatedMlpNames};

use super::config::{Family, LanguageModelConfig};

/// Names of one family. Layer parts stand below the layer's own path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// Path of body tensors.
    pub body: &'static str,
    pub embedding: &'static str,
    pub norm: &'static str,
    /// Full path of the head.
    pub head: &'static str,
    pub attention_norm: &'static str,
    /// Query, key and value projections, or one for all three.
    pub projections: Projections,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub output: &'static str,
    pub mlp_norm: &'static str,
    /// Path of the feed-forward layer below the layer; empty: no path of its own.
    pub mlp: &'static str,
    pub mlp_parts: GatedMlpNames,
    pub experts: ExpertNames,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Projections {
    Separate([&'static str; 3]),
    Fused(&'static str),
}

const LLAMA: Names = Names {
    body: "model",
    embedding: "embed_tokens",
    norm: "norm",
    head: "lm_head",
    attention_norm: "input_layernorm",
    projections: Projections::Separate([
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
    ]),
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    mlp: "mlp",
    mlp_parts: GatedMlpNames::LLAMA,
    experts: ExpertNames {
        router: "gate.weight",
        bias: "expert_bias",
        shared: "shared_expert",
    },
};

const LLADA: Names = Names {
    body: "transformer",
    embedding: "wte",
    norm: "ln_f",
    head: "transformer.ff_out",
    attention_norm: "attn_norm",
    projections: Projections::Separate(["q_proj", "k_proj", "v_proj"]),
    query_norm: "q_norm",
    key_norm: "k_norm",
    output: "attn_out",
    mlp_norm: "ff_norm",
    mlp: "",
    mlp_parts: GatedMlpNames {
        gate: "ff_proj",
        up: "up_proj",
        down: "ff_out",
    },
    experts: LLAMA.experts,
};

const BAILING: Names = Names {
    embedding: "word_embeddings",
    projections: Projections::Fused("attention.query_key_value"),
    query_norm: "attention.query_layernorm",
    key_norm: "attention.key_layernorm",
    output: "attention.dense",
    experts: ExpertNames {
        router: "gate.weight",
        bias: "gate.expert_bias",
        shared: "shared_experts",
    },
    ..LLAMA
};

impl Names {
    pub(super) fn of(family: Family) -> Self {
        match family {
            Family::Llada => LLADA,
            Family::Llada2 => BAILING,
            _ => LLAMA,
        }
    }

    /// Path of layer `index` below the body.
    pub(super) fn layer(config: &LanguageModelConfig, index: usize) -> String {
        let group = config.block_group_size;
        match config.family {
            Family::Llada if group > 1 => {
                format!("block_groups.{}.{}", index / group, index % group)
            }
            Family::Llada => format!("blocks.{index}"),
            _ => format!("layers.{index}"),
        }
    }
}
