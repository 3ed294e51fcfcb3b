//! `config.json`.

use brisk_nn::ops::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ImageEncoderConfig, tiny_vit};
use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
pub(super) const LARGEST_WIDTH: usize = 1 << 16;
pub(super) const LARGEST_SIDE: usize = 1 << 13;
pub(super) const MOST_LAYERS: usize = 1 << 10;
/// Kinds of points that have a vector: background, foreground, and two corners of a box.
const POINT_KINDS: usize = 4;

/// Settings of a model, named as in its `config.json`; where a key is missing, the default of the
/// reference's class, which is ViT-B.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamConfig {
    /// The image encoder.
    pub vision_config: ImageEncoderConfig,
    /// The prompt encoder.
    pub prompt_encoder_config: PromptEncoderConfig,
    /// The mask decoder.
    pub mask_decoder_config: MaskDecoderConfig,
}

/// The same with settings of one kind of image encoder.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parsed<V: Default> {
    vision_config: V,
    prompt_encoder_config: PromptEncoderConfig,
    mask_decoder_config: MaskDecoderConfig,
}

impl<V: Default + DeserializeOwned> Parsed<V> {
    fn config(
        bytes: &[u8],
        label: &str,
        encoder: fn(V) -> ImageEncoderConfig,
    ) -> Result<SamConfig> {
        let Self {
            vision_config,
            prompt_encoder_config,
            mask_decoder_config,
        } = parse(bytes, label)?;
        Ok(SamConfig {
            vision_config: encoder(vision_config),
            prompt_encoder_config,
            mask_decoder_config,
        })
    }
}

/// What a configuration says of the kind of its image encoder.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    vision_config: KindOfEncoder,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KindOfEncoder {
    model_type: Option<String>,
}

/// Settings of the prompt encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct PromptEncoderConfig {
    /// Channels of a prompt's vectors.
    pub hidden_size: usize,
    /// As [`VisionConfig::image_size`](super::VisionConfig::image_size).
    pub image_size: usize,
    /// As [`VisionConfig::patch_size`](super::VisionConfig::patch_size).
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
    /// Epsilon of the norm behind the last attention, which transformers has no key for.
    pub final_layer_norm_eps: f64,
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
            final_layer_norm_eps: 1e-5,
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
        let kind: Kind = parse(bytes, label)?;
        let config = match kind.vision_config.model_type.as_deref() {
            None | Some("" | "sam_vision_model") => {
                Parsed::config(bytes, label, ImageEncoderConfig::Vit)?
            }
            Some("tiny_vit") => Parsed::config(bytes, label, ImageEncoderConfig::TinyVit)?,
            Some("efficientvit") => Parsed::config(bytes, label, ImageEncoderConfig::EfficientVit)?,
            Some(other) => {
                return Err(Error::Config(format!(
                    "{label}: `vision_config.model_type` is {other:?}; expected \"sam_vision_model\", \"tiny_vit\" \
                     or \"efficientvit\""
                )));
            }
        };
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Side of the frame that pictures are put into and prompts refer to, in pixels.
    pub fn image_size(&self) -> usize {
        self.prompt_encoder_config.image_size
    }

    /// Side in pixels at which the image encoder sees the frame.
    pub fn encoder_size(&self) -> usize {
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => config.image_size,
            ImageEncoderConfig::TinyVit(config) => config.image_size,
            ImageEncoderConfig::EfficientVit(config) => config.image_size,
        }
    }

    /// Cells of a picture's embedding along a side.
    pub fn grid(&self) -> usize {
        self.image_size() / self.prompt_encoder_config.patch_size
    }

    /// Frequencies that positions are encoded with.
    pub fn frequencies(&self) -> usize {
        self.prompt_encoder_config.hidden_size / 2
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        let (prompt, decoder) = (&self.prompt_encoder_config, &self.mask_decoder_config);
        match &self.vision_config {
            ImageEncoderConfig::Vit(config) => config.validate()?,
            ImageEncoderConfig::TinyVit(config) => config.validate()?,
            ImageEncoderConfig::EfficientVit(config) => config.validate()?,
        }
        self.check_sizes()?;
        activation("prompt_encoder_config.hidden_act", &prompt.hidden_act)?;
        activation("mask_decoder_config.hidden_act", &decoder.hidden_act)?;
        for (key, value, divisor_key, divisor) in [
            (
                "prompt_encoder_config.image_size",
                prompt.image_size,
                "patch_size",
                prompt.patch_size,
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
            check_multiple(key, value, divisor_key, divisor)?;
        }
        for (key, found, other, expected) in [
            (
                "vision_config.output_channels",
                self.vision_config.output_channels(),
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
                "prompt_encoder_config.num_point_embeddings",
                prompt.num_point_embeddings,
                "the kinds of points",
                POINT_KINDS,
            ),
        ] {
            check_equal(key, found, other, expected)?;
        }
        self.check_frame()?;
        check_epsilon(
            "prompt_encoder_config.layer_norm_eps",
            prompt.layer_norm_eps,
        )?;
        check_epsilon("mask_decoder_config.layer_norm_eps", decoder.layer_norm_eps)?;
        check_epsilon(
            "mask_decoder_config.final_layer_norm_eps",
            decoder.final_layer_norm_eps,
        )
    }

    /// Whether the image encoder gives the cells that prompts refer to.
    fn check_frame(&self) -> Result<()> {
        let prompt = &self.prompt_encoder_config;
        let (patch, size) = ("vision_config.patch_size", "vision_config.image_size");
        let (of_patch, of_size) = (
            "prompt_encoder_config.patch_size",
            "prompt_encoder_config.image_size",
        );
        match &self.vision_config {
            ImageEncoderConfig::Vit(vision) => {
                let frequencies = 2 * vision.num_pos_feats;
                check_equal(
                    "vision_config.num_pos_feats · 2",
                    frequencies,
                    "prompt_encoder_config.hidden_size",
                    prompt.hidden_size,
                )?;
                check_equal(size, vision.image_size, of_size, prompt.image_size)?;
                check_equal(patch, vision.patch_size, of_patch, prompt.patch_size)
            }
            ImageEncoderConfig::TinyVit(vision) => {
                check_equal(size, vision.image_size, of_size, prompt.image_size)?;
                check_equal(
                    of_patch,
                    prompt.patch_size,
                    "this encoder's",
                    tiny_vit::PATCH,
                )
            }
            // What it gives is resized to the cells.
            ImageEncoderConfig::EfficientVit(_) => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<()> {
        let (prompt, decoder) = (&self.prompt_encoder_config, &self.mask_decoder_config);
        for (key, value, limit) in [
            (
                "prompt_encoder_config.hidden_size",
                prompt.hidden_size,
                LARGEST_WIDTH,
            ),
            (
                "prompt_encoder_config.image_size",
                prompt.image_size,
                LARGEST_SIDE,
            ),
            (
                "prompt_encoder_config.patch_size",
                prompt.patch_size,
                LARGEST_SIDE,
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

/// Refuses a value that a divisor does not divide.
pub(super) fn check_multiple(
    key: &str,
    value: usize,
    divisor_key: &str,
    divisor: usize,
) -> Result<()> {
    if value == 0 || !value.is_multiple_of(divisor.max(1)) {
        return Err(Error::Config(format!(
            "`{key}` is {value}; expected a multiple of {divisor_key} ({divisor})"
        )));
    }
    Ok(())
}

/// Refuses a value that is not another one's.
fn check_equal(key: &str, found: usize, other: &str, expected: usize) -> Result<()> {
    if found != expected {
        return Err(Error::Config(format!(
            "`{key}` is {found}; expected {expected}, as {other}"
        )));
    }
    Ok(())
}

/// Refuses what is no epsilon of a norm.
pub(super) fn check_epsilon(key: &str, value: f64) -> Result<()> {
    if !(0.0..1.0).contains(&value) {
        return Err(Error::Config(format!(
            "`{key}` is {value}; expected 0 to below 1"
        )));
    }
    Ok(())
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
                r#"{"vision_config": {"model_type": "hiera"}}"#,
                ["vision_config.model_type", "hiera"],
            ),
            (
                r#"{"vision_config": {"model_type": "tiny_vit", "image_size": 512}}"#,
                ["vision_config.image_size", "512"],
            ),
            (
                r#"{"vision_config": {"model_type": "tiny_vit", "num_heads": [2, 4, 7, 10]}}"#,
                ["vision_config.embed_dims[2]", "num_heads (7)"],
            ),
            (
                r#"{"vision_config": {"model_type": "efficientvit", "block_list": ["res", "att"]}}"#,
                ["vision_config.block_list", "5 stages"],
            ),
            (
                r#"{"vision_config": {"model_type": "efficientvit", "qkv_dim": 24}}"#,
                ["vision_config.width_list[4]", "24"],
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
