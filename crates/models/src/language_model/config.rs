//! What the transformer needs to know, whichever way the published `config.json` says it.

use brisk_nn::ExpertOptions;

use crate::config::check_count;
use crate::{Error, Result};

/// Which published layout a checkpoint follows. It decides names and the way of decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LLaDA and iLLaDA, dense.
    Llada,
    /// Dream.
    Dream,
    /// A Qwen or Llama graph with masked diffusion (A2D: MDLM, BD3LM).
    A2d,
    /// Fast-dLLM v2.
    FastDllm2,
    /// SDAR.
    Sdar,
    /// LLaDA-MoE.
    LladaMoe,
    /// LLaDA2.
    Llada2,
    /// Llama itself, which writes token by token.
    Llama,
    /// Qwen2, whose body encodes texts; no diffusion model.
    Qwen2,
}

impl Family {
    /// The name people know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llada => "LLaDA",
            Self::Dream => "Dream",
            Self::A2d => "A2D",
            Self::FastDllm2 => "Fast-dLLM v2",
            Self::Sdar => "SDAR",
            Self::LladaMoe => "LLaDA-MoE",
            Self::Llada2 => "LLaDA2",
            Self::Llama => "Llama",
            Self::Qwen2 => "Qwen2",
        }
    }

    /// How the family's files spell a setting, which is called as most of them do.
    pub(super) fn spelling(self, key: &'static str) -> &'static str {
        match (self, key) {
            (Self::Llada, "vocab_size") => "embedding_size",
            (Self::Llada, "hidden_size") => "d_model",
            (Self::Llada, "intermediate_size") => "mlp_hidden_size",
            (Self::Llada, "num_hidden_layers") => "n_layers",
            (Self::Llada, "num_attention_heads") => "n_heads",
            (Self::Llada, "num_key_value_heads") => "n_kv_heads",
            (Self::Llada, "max_position_embeddings") => "max_sequence_length",
            // The one number that follows from the two.
            (Self::Llada, "head_dim") => "d_model` / `n_heads",
            (Self::LladaMoe, "intermediate_size") => "dense_intermediate_size",
            (Self::Llada2, "expert_intermediate_size") => "moe_intermediate_size",
            (Self::Llada2, "shared_expert_intermediate_size") => "num_shared_experts",
            (Self::FastDllm2, "block_size") => "bd_size",
            _ => key,
        }
    }
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// All of them.
    Full,
    /// Those of its own block and of earlier ones; blocks of this many positions.
    BlockCausal(usize),
}

impl Attention {
    /// Its own and the earlier ones, as in models that write token by token.
    pub const CAUSAL: Self = Self::BlockCausal(1);
}

/// Where queries and keys are normalised before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// Nowhere.
    None,
    /// Over each head.
    Head,
    /// Over all heads together.
    Projection,
}

/// Settings of a diffusion language model.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModelConfig {
    /// The published layout.
    pub family: Family,
    /// Rows of the embedding table and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside a dense feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// Channels of each head that rotate, from the first.
    pub rotary_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What positions are divided by before they turn queries and keys.
    pub rope_scaling: f64,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the projection after attention has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Norm of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// Which keys a query sees.
    pub attention: Attention,
    /// Whether row i − 1 predicts token i, as in autoregressive models.
    pub shifted: bool,
    /// Experts, in the layers that have them.
    pub experts: Option<ExpertOptions>,
    /// Layers with experts; empty without experts.
    pub expert_layers: Vec<bool>,
    /// Layers in one group of names (`block_groups`); 1: names count layers.
    pub block_group_size: usize,
    /// Positions the model knows.
    pub context: usize,
    /// Token that stands for "not decided yet", where the file says.
    pub mask_token_id: Option<u32>,
    /// Tokens that end a text, where the file says.
    pub eos_token_ids: Vec<u32>,
}

impl LanguageModelConfig {
    /// Values of `model_type` in the published files of the families.
    pub const MODEL_TYPES: [&str; 9] = [
        "llada",
        "Dream",
        "a2d-qwen2",
        "a2d-qwen3",
        "a2d-llama",
        "Fast_dLLM_Qwen",
        "sdar",
        "lladamoe",
        "llada2_moe",
    ];

    /// The same and the values of `architectures` in them.
    pub(super) const CLASSES: [&str; 15] = [
        "LLaDA2MoeModelLM",
        "LLaDAMoEModelLM",
        "LLaDAModelLM",
        "DreamModel",
        "Fast_dLLM_QwenForCausalLM",
        "SDARForCausalLM",
        "llada",
        "Dream",
        "a2d-qwen2",
        "a2d-qwen3",
        "a2d-llama",
        "Fast_dLLM_Qwen",
        "sdar",
        "lladamoe",
        "llada2_moe",
    ];

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first value that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        let spelt = |key| self.family.spelling(key);
        for (key, value, limit) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_layers, 1 << 12),
            ("num_attention_heads", self.num_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.context, 1 << 24),
            ("block_group_size", self.block_group_size, 1 << 12),
        ] {
            check_count(spelt(key), value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        if !self.num_heads.is_multiple_of(self.num_key_value_heads) {
            return fail(format!(
                "`{}` {} does not divide `{}` {}",
                spelt("num_key_value_heads"),
                self.num_key_value_heads,
                spelt("num_attention_heads"),
                self.num_heads
            ));
        }
        if !self.rotary_dim.is_multiple_of(2) || self.rotary_dim > self.head_dim {
            return fail(format!(
                "{} of the {} channels of a head rotate (`{}`); expected an even number of them",
                self.rotary_dim,
                self.head_dim,
                spelt("head_dim"),
            ));
        }
        for (key, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
            ("rope_scaling", self.rope_scaling),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return fail(format!("`{key}` is {value}; expected a positive number"));
            }
        }
        if let Attention::BlockCausal(block) = self.attention {
            check_count(spelt("block_size"), block, 1 << 20)?;
        }
        for (key, id) in self
            .mask_token_id
            .iter()
            .map(|id| ("mask_token_id", *id))
            .chain(self.eos_token_ids.iter().map(|id| ("eos_token_id", *id)))
        {
            if id as usize >= self.vocab_size {
                return fail(format!(
                    "`{key}` {id} is outside the vocabulary of {} rows",
                    self.vocab_size
                ));
            }
        }
        if let Some(experts) = &self.experts {
            // Every expert of every layer has names and tensors of its own.
            check_count("num_experts", experts.count, (1 << 18) / self.num_layers)?;
            let inner = spelt("expert_intermediate_size");
            check_count(inner, experts.inner, 1 << 20)?;
            let shared = experts.shared_inner.unwrap_or(1);
            check_count(spelt("shared_expert_intermediate_size"), shared, 1 << 24)?;
            experts.validate()?;
        }
        if !self.num_layers.is_multiple_of(self.block_group_size) {
            return fail(format!(
                "`block_group_size` {} does not divide `{}` {}",
                self.block_group_size,
                spelt("num_hidden_layers"),
                self.num_layers
            ));
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key heads together.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Whether layer `index` has experts.
    pub fn has_experts(&self, index: usize) -> bool {
        self.expert_layers.get(index).copied().unwrap_or(false)
    }

    /// Number of parameters, embedding and head included.
    pub fn parameters(&self) -> u64 {
        let wide = |n: usize| n as u64;
        let (d, q, k) = (
            wide(self.hidden_size),
            wide(self.query_width()),
            wide(self.key_width()),
        );
        let norms = match self.query_key_norm {
            QueryKeyNorm::None => 0,
            QueryKeyNorm::Head => 2 * wide(self.head_dim),
            QueryKeyNorm::Projection => q + k,
        };
        let mut attention = d * (2 * q + 2 * k) + 2 * d + norms;
        attention += if self.qkv_bias { q + 2 * k } else { 0 };
        attention += if self.output_bias { d } else { 0 };
        let inner = wide(self.intermediate_size);
        let dense = 3 * d * inner + if self.mlp_bias { 2 * inner + d } else { 0 };
        let sparse = self.experts.as_ref().map_or(0, |e| {
            let count = wide(e.count);
            let bias = if e.bias { count } else { 0 };
            count * (d + 3 * d * wide(e.inner)) + bias + 3 * d * wide(e.shared_inner.unwrap_or(0))
        });
        let layers: u64 = (0..self.num_layers)
            .map(|index| {
                attention
                    + if self.has_experts(index) {
                        sparse
                    } else {
                        dense
                    }
            })
            .sum();
        let tables = if self.tied { 1 } else { 2 };
        wide(self.vocab_size) * d * tables + layers + d
    }
}
