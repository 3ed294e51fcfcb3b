//! `transformer/config.json`.

use serde::Deserialize;

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// How a model is shown the first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageCondition {
    /// Its latent stands beside the noise, with a mask of the frames that are given: 2·C + 1 channels.
    LatentConcat,
    /// Its latent stands in place of the first frame's noise, whose tokens are modulated as at time 0.
    TokenReplace,
}

/// Settings of a transformer, under the keys of diffusers' class and with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct VideoTransformerConfig {
    /// Channels of what it sees.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of one; the width is all of them.
    pub attention_head_dim: usize,
    /// Blocks with a stream for each of picture and text.
    pub num_layers: usize,
    /// Blocks with one stream for both.
    pub num_single_layers: usize,
    /// Blocks that refine the text.
    pub num_refiner_layers: usize,
    /// Hidden channels of the MLPs of blocks, in widths; the refiner's have four whatever it says.
    pub mlp_ratio: f64,
    /// Rows and columns of a patch.
    pub patch_size: usize,
    /// Frames of a patch.
    pub patch_size_t: usize,
    /// Norm of queries and keys: `rms_norm`, head by head.
    pub qk_norm: String,
    /// Whether the strength of guidance is embedded.
    pub guidance_embeds: bool,
    /// Channels of the text's tokens.
    pub text_embed_dim: usize,
    /// Channels of the vector of the whole text.
    pub pooled_projection_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Channels of a head that turn by frame, row and column.
    pub rope_axes_dim: [usize; 3],
    /// How the first frame is shown; none: text alone.
    pub image_condition_type: Option<ImageCondition>,
}

impl Default for VideoTransformerConfig {
    fn default() -> Self {
        Self {
            in_channels: 16,
            out_channels: 16,
            num_attention_heads: 24,
            attention_head_dim: 128,
            num_layers: 20,
            num_single_layers: 40,
            num_refiner_layers: 2,
            mlp_ratio: 4.0,
            patch_size: 2,
            patch_size_t: 1,
            qk_norm: "rms_norm".into(),
            guidance_embeds: true,
            text_embed_dim: 4096,
            pooled_projection_dim: 768,
            rope_theta: 256.0,
            rope_axes_dim: [16, 56, 56],
            image_condition_type: None,
        }
    }
}

impl VideoTransformerConfig {
    /// The class that a configuration names.
    pub const CLASS: &'static str = "HunyuanVideoTransformer3DModel";

    /// The keys that are read.
    pub const KEYS: &'static [&'static str] = &[
        "in_channels",
        "out_channels",
        "num_attention_heads",
        "attention_head_dim",
        "num_layers",
        "num_single_layers",
        "num_refiner_layers",
        "mlp_ratio",
        "patch_size",
        "patch_size_t",
        "qk_norm",
        "guidance_embeds",
        "text_embed_dim",
        "pooled_projection_dim",
        "rope_theta",
        "rope_axes_dim",
        "image_condition_type",
    ];

    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Another model's file, or values that cannot be honoured, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "_class_name", Self::CLASS)?;
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
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("attention_head_dim", self.attention_head_dim, 1 << 12),
            ("num_layers", self.num_layers, 1 << 10),
            ("num_single_layers", self.num_single_layers, 1 << 10),
            ("num_refiner_layers", self.num_refiner_layers, 1 << 10),
            ("patch_size", self.patch_size, 1 << 6),
            ("patch_size_t", self.patch_size_t, 1 << 6),
            ("text_embed_dim", self.text_embed_dim, 1 << 18),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 18),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        if self.width() > 1 << 16 {
            return fail(format!(
                "`num_attention_heads` {} times `attention_head_dim` {} is absurd",
                self.num_attention_heads, self.attention_head_dim
            ));
        }
        if !(self.mlp_ratio.is_finite() && (0.0..=64.0).contains(&self.mlp_ratio))
            || self.hidden() == 0
        {
            return fail(format!("`mlp_ratio` {} is not usable", self.mlp_ratio));
        }
        if self.qk_norm != "rms_norm" {
            return fail(format!(
                "`qk_norm` is {:?}; expected \"rms_norm\"",
                self.qk_norm
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return fail(format!(
                "`rope_theta` is {}; expected a positive number",
                self.rope_theta
            ));
        }
        let [frame, row, column] = self.rope_axes_dim;
        let even = self.rope_axes_dim.iter().all(|dim| dim % 2 == 0);
        let sum = frame
            .checked_add(row)
            .and_then(|sum| sum.checked_add(column));
        if !even || sum != Some(self.attention_head_dim) {
            return fail(format!(
                "`rope_axes_dim` is {:?}; expected three even numbers whose sum is `attention_head_dim`, {}",
                self.rope_axes_dim, self.attention_head_dim
            ));
        }
        if self.image_condition_type == Some(ImageCondition::LatentConcat)
            && self.in_channels != 2 * self.out_channels + 1
        {
            return fail(format!(
                "`in_channels` is {} with `image_condition_type` \"latent_concat\"; expected 2 x `out_channels` + 1 = \
                 {}: the latent, that of the given frames and their mask",
                self.in_channels,
                2 * self.out_channels + 1
            ));
        }
        Ok(())
    }

    /// Width of the residual stream.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Hidden channels of the MLPs.
    pub fn hidden(&self) -> usize {
        (self.width() as f64 * self.mlp_ratio) as usize
    }

    /// Values of a patch of so many channels.
    pub(super) fn patch_values(&self, channels: usize) -> usize {
        channels * self.patch_size_t * self.patch_size * self.patch_size
    }

    /// Patches along frames, rows and columns.
    pub fn grid(&self, frames: usize, height: usize, width: usize) -> [usize; 3] {
        [
            frames / self.patch_size_t,
            height / self.patch_size,
            width / self.patch_size,
        ]
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let [d, hidden, head, text, pooled] = [
            self.width(),
            self.hidden(),
            self.attention_head_dim,
            self.text_embed_dim,
            self.pooled_projection_dim,
        ]
        .map(|n| n as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let embedder = |from: u64| linear(from, d) + linear(d, d);
        let times = 1 + u64::from(self.guidance_embeds);
        let patch = |channels: usize| self.patch_values(channels) as u64;
        let refiner_block =
            4 * d + 4 * linear(d, d) + linear(d, 4 * d) + linear(4 * d, d) + linear(d, 2 * d);
        let refiner = linear(text, d) + embedder(256) + embedder(text);
        let stream =
            linear(d, 6 * d) + 4 * linear(d, d) + 2 * head + linear(d, hidden) + linear(hidden, d);
        let single = linear(d, 3 * d)
            + 3 * linear(d, d)
            + 2 * head
            + linear(d, hidden)
            + linear(d + hidden, d);
        linear(patch(self.in_channels), d)
            + times * embedder(256)
            + embedder(pooled)
            + refiner
            + self.num_refiner_layers as u64 * refiner_block
            + self.num_layers as u64 * 2 * stream
            + self.num_single_layers as u64 * single
            + linear(d, 2 * d)
            + linear(d, patch(self.out_channels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_size_has_the_published_number_of_parameters() {
        let config = VideoTransformerConfig {
            in_channels: 33,
            guidance_embeds: false,
            image_condition_type: Some(ImageCondition::LatentConcat),
            ..VideoTransformerConfig::default()
        };
        config.validate().unwrap();
        assert_eq!(config.parameters(), 12_810_991_680);
    }

    #[test]
    fn wrong_values_are_named() {
        let read = |text: &str| {
            let read = VideoTransformerConfig::from_json(text.as_bytes(), "config.json");
            read.map_err(|error| error.to_string())
        };
        assert!(read("{}").is_ok());
        for (text, word) in [
            (r#"{"num_layers": 0}"#, "`num_layers` is 0"),
            (r#"{"qk_norm": "layer_norm"}"#, "`qk_norm`"),
            (r#"{"rope_axes_dim": [16, 56, 54]}"#, "`rope_axes_dim`"),
            (r#"{"rope_axes_dim": [15, 57, 56]}"#, "`rope_axes_dim`"),
            (r#"{"rope_axes_dim": [16, 112]}"#, "`rope_axes_dim"),
            (r#"{"mlp_ratio": -1}"#, "`mlp_ratio`"),
            (r#"{"rope_theta": 0}"#, "`rope_theta`"),
            (
                r#"{"image_condition_type": "latent_concat"}"#,
                "`in_channels` is 16",
            ),
            (
                r#"{"image_condition_type": "other"}"#,
                "image_condition_type",
            ),
            (
                r#"{"_class_name": "FluxTransformer2DModel"}"#,
                "another model",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
