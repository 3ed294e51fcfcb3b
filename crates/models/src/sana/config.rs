//! `transformer/config.json` of SANA.

use serde::{Deserialize, Serialize};

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Normalisation of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    /// RMSNorm over the whole width, before the split into heads (SANA-1.5, Sprint).
    RmsNormAcrossHeads,
}

/// Small constants in which diffusers and the authors' code differ. Not part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// Linear attention divides by `sum + 1e-15`; every QK-norm uses 1e-5.
    #[default]
    Diffusers,
    /// Linear attention divides by `sum + 1e-8`; cross-attention QK-norm uses 1e-6.
    Native,
}

impl Numerics {
    /// Added to the denominator of linear attention.
    pub fn linear_attention_eps(self) -> f64 {
        match self {
            Self::Diffusers => 1e-15,
            Self::Native => 1e-8,
        }
    }

    /// Epsilon of the QK-norm of cross attention.
    pub fn cross_qk_norm_eps(self) -> f64 {
        match self {
            Self::Diffusers => 1e-5,
            Self::Native => 1e-6,
        }
    }
}

/// Settings of a SANA transformer, named as in the published `config.json`; a missing key takes
/// the default of SANA 1.6B at 1024 px.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SanaConfig {
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels predicted; none: as many as go in.
    pub out_channels: Option<usize>,
    /// Heads of the linear self-attention.
    pub num_attention_heads: usize,
    /// Channels of one such head; heads times this is the width d.
    pub attention_head_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Heads of the cross attention.
    pub num_cross_attention_heads: usize,
    /// Channels of one such head.
    pub cross_attention_head_dim: usize,
    /// Width of the projected caption; must equal d.
    pub cross_attention_dim: usize,
    /// Width of the text encoder's output.
    pub caption_channels: usize,
    /// Hidden channels of the Mix-FFN over d.
    pub mlp_ratio: f64,
    /// Whether self-attention's query, key and value projections have biases.
    pub attention_bias: bool,
    /// Side of the latent the model was trained at; the base of the positional embedding.
    pub sample_size: usize,
    /// Side of a patch in latent cells.
    pub patch_size: usize,
    /// Whether the norm before the Mix-FFN has weights of its own.
    pub norm_elementwise_affine: bool,
    /// Epsilon of the LayerNorms inside the blocks.
    pub norm_eps: f64,
    /// Scale of the sin-cos positional embedding; none: no positional embedding.
    pub interpolation_scale: Option<f64>,
    /// Whether the model takes the guidance strength as an input (Sprint).
    pub guidance_embeds: bool,
    /// What the pipeline multiplies the guidance strength by.
    pub guidance_embeds_scale: f64,
    /// Normalisation of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// What the pipeline multiplies the timestep by.
    pub timestep_scale: f64,
    /// Dropout while training; the published models use none and neither does this one.
    pub dropout: f64,
    /// Which constants to use; set in code, never read from the file.
    #[serde(skip)]
    pub numerics: Numerics,
}

impl Default for SanaConfig {
    fn default() -> Self {
        Self {
            in_channels: 32,
            out_channels: Some(32),
            num_attention_heads: 70,
            attention_head_dim: 32,
            num_layers: 20,
            num_cross_attention_heads: 20,
            cross_attention_head_dim: 112,
            cross_attention_dim: 2240,
            caption_channels: 2304,
            mlp_ratio: 2.5,
            attention_bias: false,
            sample_size: 32,
            patch_size: 1,
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            guidance_embeds: false,
            guidance_embeds_scale: 0.1,
            qk_norm: None,
            timestep_scale: 1.0,
            dropout: 0.0,
            numerics: Numerics::Diffusers,
        }
    }
}

impl SanaConfig {
    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Malformed JSON, a value of the wrong type, or values that contradict each other; the
    /// message names the key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "_class_name", "SanaTransformer2DModel")?;
        Self::from_json_of_any_kind(bytes, label)
    }

    /// As [`SanaConfig::from_json`], for files that describe a relative of the transformer.
    pub(crate) fn from_json_of_any_kind(bytes: &[u8], label: &str) -> Result<Self> {
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
            ("in_channels", self.in_channels, 1 << 16),
            ("out_channels", self.output_channels(), 1 << 16),
            ("num_attention_heads", self.num_attention_heads, 1 << 16),
            ("attention_head_dim", self.attention_head_dim, 1 << 16),
            ("num_layers", self.num_layers, 1 << 12),
            (
                "num_cross_attention_heads",
                self.num_cross_attention_heads,
                1 << 10,
            ),
            (
                "cross_attention_head_dim",
                self.cross_attention_head_dim,
                1 << 10,
            ),
            ("caption_channels", self.caption_channels, 1 << 20),
            ("sample_size", self.sample_size, 1 << 16),
            ("patch_size", self.patch_size, 1 << 8),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        let Some(width) = self
            .num_attention_heads
            .checked_mul(self.attention_head_dim)
            .filter(|width| *width <= 1 << 20)
        else {
            return fail(format!(
                "`num_attention_heads` {} times `attention_head_dim` {} is absurd",
                self.num_attention_heads, self.attention_head_dim
            ));
        };
        if self.cross_attention_dim != width {
            return fail(format!(
                "`cross_attention_dim` is {}, but the width \
                 (`num_attention_heads` x `attention_head_dim`) is {width}",
                self.cross_attention_dim
            ));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.mlp_ratio) || self.mlp_ratio > 64.0 || self.hidden() == 0 {
            return fail(format!("`mlp_ratio` {} is not usable", self.mlp_ratio));
        }
        if !positive(self.norm_eps) {
            return fail(format!(
                "`norm_eps` is {}; expected a positive number",
                self.norm_eps
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!("`dropout` is {}; expected 0 to 1", self.dropout));
        }
        for (key, value) in [
            ("guidance_embeds_scale", self.guidance_embeds_scale),
            ("timestep_scale", self.timestep_scale),
        ] {
            if !value.is_finite() {
                return fail(format!("`{key}` is {value}; expected a finite number"));
            }
        }
        if let Some(scale) = self.interpolation_scale {
            if !positive(scale) {
                return fail(format!(
                    "`interpolation_scale` is {scale}; expected a positive number or null"
                ));
            }
            if !width.is_multiple_of(4) {
                return fail(format!(
                    "`interpolation_scale` asks for a positional embedding, \
                     which needs a width divisible by 4; it is {width}"
                ));
            }
            if self.sample_size < self.patch_size {
                return fail(format!(
                    "`sample_size` {} is smaller than `patch_size` {}",
                    self.sample_size, self.patch_size
                ));
            }
        }
        Ok(())
    }

    /// Width d of the residual stream.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width inside the cross attention.
    pub fn cross_width(&self) -> usize {
        self.num_cross_attention_heads * self.cross_attention_head_dim
    }

    /// Hidden channels of the Mix-FFN (one of its two halves).
    pub fn hidden(&self) -> usize {
        (self.mlp_ratio * self.width() as f64) as usize
    }

    /// Channels of the prediction.
    pub fn output_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let d = self.width() as u64;
        let patch = (self.patch_size * self.patch_size) as u64;
        let out = patch * self.output_channels() as u64;
        let output = d * out + out + 2 * d;
        self.embedding_parameters() + self.num_layers as u64 * self.block_parameters() + output
    }

    /// Parameters before the first block: patch, time and caption embedding.
    pub(crate) fn embedding_parameters(&self) -> u64 {
        let d = self.width() as u64;
        let patch = (self.patch_size * self.patch_size * self.in_channels) as u64;
        let embedder = 256 * d + d + d * d + d;
        let embedders = if self.guidance_embeds { 2 } else { 1 };
        let caption = self.caption_channels as u64 * d + d + d * d + d + d;
        patch * d + d + embedders * embedder + 6 * d * d + 6 * d + caption
    }

    /// Parameters of one block.
    pub(crate) fn block_parameters(&self) -> u64 {
        let [d, cross, h] = [self.width(), self.cross_width(), self.hidden()].map(|n| n as u64);
        let bias = if self.attention_bias { 3 * d } else { 0 };
        let norms = if self.qk_norm.is_some() {
            2 * d + 2 * cross
        } else {
            0
        };
        let affine = if self.norm_elementwise_affine {
            2 * d
        } else {
            0
        };
        let attention = 4 * d * d + d + bias;
        let crossing = 4 * d * cross + 3 * cross + d;
        let feed_forward = 2 * h * d + 2 * h + 18 * h + 2 * h + h * d;
        attention + crossing + feed_forward + norms + affine + 6 * d
    }
}
