//! `config.json` of a Gemma 2 checkpoint.

use serde::{Deserialize, Serialize};

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Which keys a layer's attention may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// The last `sliding_window` positions only.
    SlidingAttention,
    /// Every earlier position.
    FullAttention,
}

/// Settings of a Gemma 2 model, named as in the published `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gemma2Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the gated MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// The MLP's activation; only `gelu_pytorch_tanh` exists for this family.
    pub hidden_activation: String,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Newer files keep the rotary settings in a table of their own.
    pub rope_parameters: Option<RopeParameters>,
    /// Other rotary frequencies than the plain ones; not supported.
    pub rope_scaling: Option<serde_json::Value>,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Logits are scaled by this value to the power −0.5.
    pub query_pre_attn_scalar: f64,
    /// Positions visible to a sliding layer.
    pub sliding_window: Option<usize>,
    /// `cap * tanh(logit / cap)` on attention logits; none: no cap.
    pub attn_logit_softcapping: Option<f64>,
    /// Kind of every layer; none: sliding, full, sliding, …
    pub layer_types: Option<Vec<LayerType>>,
    /// Attention in both directions, as some fine-tuned embedders have; not supported.
    pub use_bidirectional_attention: Option<bool>,
}

/// Rotary settings as newer configuration files write them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base of the frequencies.
    pub rope_theta: Option<f64>,
    /// Only `default` is known here.
    pub rope_type: Option<String>,
}

impl Default for Gemma2Config {
    /// Gemma-2-2b.
    fn default() -> Self {
        Self {
            vocab_size: 256_000,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: "gelu_pytorch_tanh".into(),
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_parameters: None,
            rope_scaling: None,
            attention_bias: false,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            attn_logit_softcapping: Some(50.0),
            layer_types: None,
            use_bidirectional_attention: None,
        }
    }
}

impl Gemma2Config {
    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Malformed JSON, a value of the wrong type, or values that contradict each other; the
    /// message names the key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "model_type", "gemma2")?;
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return fail(format!(
                "`num_key_value_heads` {} does not divide `num_attention_heads` {}",
                self.num_key_value_heads, self.num_attention_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!(
                "`head_dim` {} is odd; rotary embedding needs pairs",
                self.head_dim
            ));
        }
        if self.hidden_activation != "gelu_pytorch_tanh" {
            return fail(format!(
                "`hidden_activation` {:?} is not supported; expected \"gelu_pytorch_tanh\"",
                self.hidden_activation
            ));
        }
        for (key, value) in [
            ("rms_norm_eps", Some(self.rms_norm_eps)),
            ("rope_theta", Some(self.rope_theta())),
            ("query_pre_attn_scalar", Some(self.query_pre_attn_scalar)),
            ("attn_logit_softcapping", self.attn_logit_softcapping),
        ] {
            if let Some(value) = value
                && !(value.is_finite() && value > 0.0)
            {
                return fail(format!("`{key}` is {value}; expected a positive number"));
            }
        }
        if self.use_bidirectional_attention == Some(true) {
            return fail("`use_bidirectional_attention` true is not supported".into());
        }
        if self.sliding_window == Some(0) {
            return fail("`sliding_window` is 0; expected at least 1 or null".into());
        }
        if let Some(kind) = self
            .rope_parameters
            .as_ref()
            .and_then(|r| r.rope_type.as_ref())
            && kind != "default"
        {
            return fail(format!(
                "`rope_parameters.rope_type` {kind:?} is not supported; expected \"default\""
            ));
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|value| !value.is_null()) {
            return fail(format!(
                "`rope_scaling` {scaling} is not supported; expected null"
            ));
        }
        if let Some(types) = &self.layer_types
            && types.len() != self.num_hidden_layers
        {
            return fail(format!(
                "`layer_types` has {} entries, `num_hidden_layers` is {}",
                types.len(),
                self.num_hidden_layers
            ));
        }
        Ok(())
    }

    /// Base of the rotary frequencies, wherever the file keeps it.
    pub fn rope_theta(&self) -> f64 {
        self.rope_parameters
            .as_ref()
            .and_then(|r| r.rope_theta)
            .unwrap_or(self.rope_theta)
    }

    /// The window of layer `index`, or none where it sees everything before it.
    pub fn window(&self, index: usize) -> Option<usize> {
        let kind = match &self.layer_types {
            Some(types) => types.get(index).copied(),
            None if index.is_multiple_of(2) => Some(LayerType::SlidingAttention),
            None => Some(LayerType::FullAttention),
        };
        match kind {
            Some(LayerType::SlidingAttention) => self.sliding_window,
            _ => None,
        }
    }

    /// Number of parameters, embedding included.
    pub fn parameters(&self) -> u64 {
        let [d, f, v] =
            [self.hidden_size, self.intermediate_size, self.vocab_size].map(|n| n as u64);
        let q = (self.num_attention_heads * self.head_dim) as u64;
        let kv = (self.num_key_value_heads * self.head_dim) as u64;
        let bias = if self.attention_bias {
            q + 2 * kv + d
        } else {
            0
        };
        let layer = 2 * q * d + 2 * kv * d + bias + 3 * d * f + 4 * d;
        v * d + self.num_hidden_layers as u64 * layer + d
    }
}
