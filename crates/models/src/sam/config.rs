//! `config.json`.

use brisk_nn::ops::Activation;
use serde::Deserialize;

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 16;
const LARGEST_SIDE: usize = 1 << 13;
const MOST_LAYERS: usize = 1 << 10;
/// Kinds of points that have a vector: background, foreground, and two corners of a box.
const POINT_KINDS: usize = 4;

/// Settings of a model, named as in its `config.json`; where a key is missing, the default of the
/// reference's class, which is ViT-B.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SamConfig {
    /// The image encoder.
    pub vision_config: VisionConfig,
    /// The prompt encoder.
    pub prompt_encoder_config: PromptEncoderConfig,
    /// The mask decoder.
    pub mask_decoder_config: MaskDecoderConfig,
}

/// Settings of the image encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Channels of the embedding of a picture.
    pub output_channels: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Side of the frame that pictures are put into, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: String,
    /// Epsilon of the layers' norms.
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Inner width of the feed-forward networks, in units of `hidden_size`.
    pub mlp_ratio: f64,
    /// The same in channels, where it is said so.
    pub mlp_dim: Option<usize>,
    /// Whether every place of the frame has a vector of its own.
    pub use_abs_pos: bool,
    /// Whether attention goes by distances in rows and columns.
    pub use_rel_pos: bool,
    /// Side of the windows of attention, in patches; 0: the whole frame.
    pub window_size: usize,
    /// Layers whose attention sees the whole frame.
    pub global_attn_indexes: Vec<usize>,
    /// Frequencies that positions are encoded with.
    pub num_pos_feats: usize,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            output_channels: 256,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 1024,
            patch_size: 16,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            mlp_ratio: 4.0,
            mlp_dim: None,
            use_abs_pos: true,
            use_rel_pos: true,
            window_size: 14,
            global_attn_indexes: vec![2, 5, 8, 11],
            num_pos_feats: 128,
        }
    }
}

impl VisionConfig {
    /// Inner width of the feed-forward networks.
    pub fn inner(&self) -> usize {
        let by_ratio = (self.hidden_size as f64 * self.mlp_ratio) as usize;
        self.mlp_dim.unwrap_or(by_ratio)
    }

    /// Patches along a side of the frame.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Channels of a head.
    pub fn head(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Side of a layer's windows; none where it sees the whole frame.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let global = self.window_size == 0 || self.global_attn_indexes.contains(&layer);
        (!global).then_some(self.window_size)
    }
}

/// Settings of the prompt encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct PromptEncoderConfig {
    /// Channels of a prompt's vectors.
    pub hidden_size: usize,
    /// As [`VisionConfig::image_size`].
    pub image_size: usize,
    /// As [`VisionConfig::patch_size`].
    pub patch_size: usize,
    /// Channels that a mask has half way.
    pub mask_input_channels: usize,
    /// Kinds of points.
    pub num_point_embeddings: usize,
    /// Activation of the mask's convolutions.
    pub hidden_act: String,
    /// Epsilon of their norms.
    pub layer_norm_eps: f64,
}

impl Default for PromptEncoderConfig {
    fn default() -> Self {
        Self {
            hidden_size: 256,
            image_size: 1024,
            patch_size: 16,
            mask_input_channels: 16,
            num_point_embeddings: POINT_KINDS,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

/// Settings of the mask decoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct MaskDecoderConfig {
    /// Channels of tokens and of the picture's embedding.
    pub hidden_size: usize,
    /// Activation of the feed-forward networks.
    pub hidden_act: String,
    /// Inner width of the feed-forward networks.
    pub mlp_dim: usize,
    /// Two-way layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// By how much the last attention is narrower than the stream; in the layers it is half as wide.
    pub attention_downsample_rate: usize,
    /// Masks for one prompt beside the single one.
    pub num_multimask_outputs: usize,
    /// Layers of the head that predicts the masks' quality.
    pub iou_head_depth: usize,
    /// Its inner width.
    pub iou_head_hidden_dim: usize,
    /// Epsilon of the layers' norms.
    pub layer_norm_eps: f64,
}

impl Default for MaskDecoderConfig {
    fn default() -> Self {
        Self {
            hidden_size: 256,
            hidden_act: "relu".to_owned(),
            mlp_dim: 2048,
            num_hidden_layers: 2,
            num_attention_heads: 8,
            attention_downsample_rate: 2,
            num_multimask_outputs: 3,
            iou_head_depth: 3,
            iou_head_hidden_dim: 256,
            layer_norm_eps: 1e-6,
        }
    }
}

impl MaskDecoderConfig {
    /// Masks of a prompt, the single one included.
    pub fn masks(&self) -> usize {
        self.num_multimask_outputs + 1
    }

    /// Channels of the last attention.
    pub fn last_inner(&self) -> usize {
        self.hidden_size / self.attention_downsample_rate
    }

    /// Channels of the layers' attention between tokens and picture, which no key says.
    pub fn inner(&self) -> usize {
        self.hidden_size / 2
    }
}

/// The activation that a key names.
pub(super) fn activation(key: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(Error::Config(format!(
            "`{key}` is {other:?}; expected \"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", \"relu\" or \"silu\""
        ))),
    }
}

impl SamConfig {
    /// Values of `model_type` and `architectures`.
    pub(super) const CLASSES: [&str; 2] = ["SamModel", "sam"];

    /// Keys that are read, or that change nothing.
    pub(super) const KEYS: [&str; 4] = [
        "vision_config",
        "prompt_encoder_config",
        "mask_decoder_config",
        "tie_word_embeddings",
    ];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Another network's file, or a value that cannot be honoured, by its key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "model_type", "sam")?;
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Side of the frame that pictures are put into, in pixels.
    pub fn image_size(&self) -> usize {
        self.vision_config.image_size
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        let (vision, prompt) = (&self.vision_config, &self.prompt_encoder_config);
        let decoder = &self.mask_decoder_config;
        self.check_sizes()?;
        activation("vision_config.hidden_act", &vision.hidden_act)?;
        activation("prompt_encoder_config.hidden_act", &prompt.hidden_act)?;
        activation("mask_decoder_config.hidden_act", &decoder.hidden_act)?;
        let fail = |message: String| Err(Error::Config(message));
        for (key, value, divisor_key, divisor) in [
            (
                "vision_config.hidden_size",
                vision.hidden_size,
                "num_attention_heads",
                vision.num_attention_heads,
            ),
            (
                "vision_config.image_size",
                vision.image_size,
                "patch_size",
                vision.patch_size,
            ),
            (
                "mask_decoder_config.hidden_size",
                decoder.hidden_size,
                "attention_downsample_rate",
                decoder.attention_downsample_rate,
            ),
            (
                "mask_decoder_config.hidden_size",
                decoder.hidden_size,
                "num_attention_heads",
                decoder.num_attention_heads,
            ),
            (
                "mask_decoder_config.hidden_size / attention_downsample_rate",
                decoder.last_inner(),
                "num_attention_heads",
                decoder.num_attention_heads,
            ),
            (
                "mask_decoder_config.hidden_size / 2",
                decoder.inner(),
                "num_attention_heads",
                decoder.num_attention_heads,
            ),
            // Two enlargements, to a quarter and an eighth.
            (
                "mask_decoder_config.hidden_size",
                decoder.hidden_size,
                "8",
                8,
            ),
            (
                "prompt_encoder_config.mask_input_channels",
                prompt.mask_input_channels,
                "4",
                4,
            ),
        ] {
            if value == 0 || !value.is_multiple_of(divisor.max(1)) {
                return fail(format!(
                    "`{key}` is {value}; expected a multiple of {divisor_key} ({divisor})"
                ));
            }
        }
        for (key, found, other, expected) in [
            (
                "vision_config.output_channels",
                vision.output_channels,
                "prompt_encoder_config.hidden_size",
                prompt.hidden_size,
            ),
            (
                "mask_decoder_config.hidden_size",
                decoder.hidden_size,
                "prompt_encoder_config.hidden_size",
                prompt.hidden_size,
            ),
            (
                "vision_config.num_pos_feats · 2",
                2 * vision.num_pos_feats,
                "prompt_encoder_config.hidden_size",
                prompt.hidden_size,
            ),
            (
                "vision_config.image_size",
                vision.image_size,
                "prompt_encoder_config.image_size",
                prompt.image_size,
            ),
            (
                "vision_config.patch_size",
                vision.patch_size,
                "prompt_encoder_config.patch_size",
                prompt.patch_size,
            ),
            (
                "prompt_encoder_config.num_point_embeddings",
                prompt.num_point_embeddings,
                "the kinds of points",
                POINT_KINDS,
            ),
            (
                "vision_config.num_channels",
                vision.num_channels,
                "red, green and blue",
                3,
            ),
        ] {
            if found != expected {
                return fail(format!(
                    "`{key}` is {found}; expected {expected}, as {other}"
                ));
            }
        }
        for (key, eps) in [
            ("vision_config.layer_norm_eps", vision.layer_norm_eps),
            (
                "prompt_encoder_config.layer_norm_eps",
                prompt.layer_norm_eps,
            ),
            ("mask_decoder_config.layer_norm_eps", decoder.layer_norm_eps),
        ] {
            if !(0.0..1.0).contains(&eps) {
                return fail(format!("`{key}` is {eps}; expected 0 to below 1"));
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let (vision, prompt) = (&self.vision_config, &self.prompt_encoder_config);
        let decoder = &self.mask_decoder_config;
        for (key, value, limit) in [
            (
                "vision_config.hidden_size",
                vision.hidden_size,
                LARGEST_WIDTH,
            ),
            (
                "vision_config.output_channels",
                vision.output_channels,
                LARGEST_WIDTH,
            ),
            (
                "vision_config.num_hidden_layers",
                vision.num_hidden_layers,
                MOST_LAYERS,
            ),
            (
                "vision_config.num_attention_heads",
                vision.num_attention_heads,
                LARGEST_WIDTH,
            ),
            ("vision_config.image_size", vision.image_size, LARGEST_SIDE),
            ("vision_config.patch_size", vision.patch_size, LARGEST_SIDE),
            (
                "vision_config.num_pos_feats",
                vision.num_pos_feats,
                LARGEST_WIDTH,
            ),
            ("vision_config.mlp_dim", vision.inner(), LARGEST_WIDTH),
            // A window of one more would be one of zeros.
            (
                "vision_config.window_size + 1",
                vision.window_size.saturating_add(1),
                LARGEST_SIDE,
            ),
            (
                "prompt_encoder_config.hidden_size",
                prompt.hidden_size,
                LARGEST_WIDTH,
            ),
            (
                "prompt_encoder_config.mask_input_channels",
                prompt.mask_input_channels,
                LARGEST_WIDTH,
            ),
            (
                "mask_decoder_config.hidden_size",
                decoder.hidden_size,
                LARGEST_WIDTH,
            ),
            (
                "mask_decoder_config.mlp_dim",
                decoder.mlp_dim,
                LARGEST_WIDTH,
            ),
            (
                "mask_decoder_config.num_hidden_layers",
                decoder.num_hidden_layers,
                MOST_LAYERS,
            ),
            (
                "mask_decoder_config.num_attention_heads",
                decoder.num_attention_heads,
                LARGEST_WIDTH,
            ),
            (
                "mask_decoder_config.attention_downsample_rate",
                decoder.attention_downsample_rate,
                LARGEST_WIDTH,
            ),
            (
                "mask_decoder_config.num_multimask_outputs",
                decoder.num_multimask_outputs,
                MOST_LAYERS,
            ),
            (
                "mask_decoder_config.iou_head_hidden_dim",
                decoder.iou_head_hidden_dim,
                LARGEST_WIDTH,
            ),
        ] {
            check_count(key, value, limit)?;
        }
        if !(2..=MOST_LAYERS).contains(&decoder.iou_head_depth) {
            return Err(Error::Config(format!(
                "`mask_decoder_config.iou_head_depth` is {}; expected 2 to {MOST_LAYERS}",
                decoder.iou_head_depth
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_named() {
        let read = |text: &str| {
            SamConfig::from_json(text.as_bytes(), "config.json").map_err(|error| error.to_string())
        };
        assert_eq!(read("{}").unwrap(), SamConfig::default());
        for (text, words) in [
            (r#"{"model_type": "sam2"}"#, ["another model", "sam2"]),
            (
                r#"{"vision_config": {"hidden_size": 770}}"#,
                ["vision_config.hidden_size", "770"],
            ),
            (
                r#"{"vision_config": {"patch_size": 0}}"#,
                ["patch_size", "is 0"],
            ),
            (
                r#"{"vision_config": {"image_size": [1024, 1024]}}"#,
                ["vision_config.image_size", "invalid type"],
            ),
            (
                r#"{"vision_config": {"hidden_act": "mish"}}"#,
                ["vision_config.hidden_act", "mish"],
            ),
            (
                r#"{"vision_config": {"image_size": 512}}"#,
                ["image_size", "512"],
            ),
            (
                r#"{"vision_config": {"mlp_ratio": 1e9}}"#,
                ["mlp_dim", "expected"],
            ),
            (
                r#"{"prompt_encoder_config": {"num_point_embeddings": 5}}"#,
                ["num_point_embeddings", "is 5"],
            ),
            (
                r#"{"mask_decoder_config": {"iou_head_depth": 1}}"#,
                ["iou_head_depth", "is 1"],
            ),
            (
                r#"{"mask_decoder_config": {"hidden_size": 128}}"#,
                ["mask_decoder_config.hidden_size", "256"],
            ),
            (
                r#"{"mask_decoder_config": {"num_attention_heads": 256}}"#,
                ["num_attention_heads", "128"],
            ),
            (
                r#"{"mask_decoder_config": {"layer_norm_eps": -1}}"#,
                ["layer_norm_eps", "-1"],
            ),
        ] {
            let message = read(text).unwrap_err();
            for word in words {
                assert!(message.contains(word), "no {word:?} in {message}");
            }
        }
    }
}
