//! Configurations of the two encoders.

use brisk_nn::{EncoderActivation, EncoderLayerOptions};
use serde::Deserialize;

use crate::config::{check_count, checked, parse};
use crate::{Cost, Error, Result};

/// The text encoder, with the defaults of its class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Rows of the table of tokens.
    pub vocab_size: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Places.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: String,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// The token whose state stands for the text; 2, as older files say, for the largest id of it.
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
        }
    }
}

/// The vision encoder, with the defaults of its class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Pixels of a picture's side.
    pub image_size: usize,
    /// Pixels of a patch's side.
    pub patch_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: String,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

/// What both check: counts by their keys, heads, activation and epsilon.
fn check(
    counts: &[(&str, usize, usize)],
    [width, heads]: [usize; 2],
    activation: &str,
    eps: f64,
) -> Result<()> {
    for (key, value, limit) in counts {
        check_count(key, *value, *limit)?;
    }
    let fail = |message: String| Err(Error::Config(message));
    if !width.is_multiple_of(heads.max(1)) {
        return fail(format!(
            "`num_attention_heads` {heads} does not divide `hidden_size` {width}"
        ));
    }
    if let Err(error) = EncoderActivation::from_name(activation) {
        return fail(format!("`hidden_act`: {error}"));
    }
    if !(eps.is_finite() && eps > 0.0) {
        return fail(format!(
            "`layer_norm_eps` is {eps}; expected a positive number"
        ));
    }
    Ok(())
}

/// The work of a layer's products with weights.
fn linear_layers(cost: &mut Cost, rows: u64, width: u64, inner: u64) {
    for _ in 0..4 {
        cost.linear(rows, width, width);
    }
    cost.linear(rows, width, inner);
    cost.linear(rows, inner, width);
}

/// Parameters of a layer.
fn layer_parameters(width: usize, inner: usize) -> u64 {
    let (width, inner) = (width as u64, inner as u64);
    let linear = |from: u64, to: u64| from * to + to;
    4 * linear(width, width) + linear(width, inner) + linear(inner, width) + 4 * width
}

impl ClipTextConfig {
    /// Values of `architectures` and `model_type`.
    pub const CLASSES: [&'static str; 2] = ["CLIPTextModel", "clip_text_model"];

    /// Keys that are read, or known to change nothing.
    pub const KEYS: &'static [&'static str] = &[
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
        "eos_token_id",
        "projection_dim",
        "initializer_factor",
        "dropout",
    ];

    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Values that cannot be honoured, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    pub(super) fn validate(&self) -> Result<()> {
        check(
            &[
                ("vocab_size", self.vocab_size, 1 << 24),
                ("hidden_size", self.hidden_size, 1 << 16),
                ("intermediate_size", self.intermediate_size, 1 << 18),
                ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
                ("num_attention_heads", self.num_attention_heads, 1 << 10),
                (
                    "max_position_embeddings",
                    self.max_position_embeddings,
                    1 << 20,
                ),
            ],
            [self.hidden_size, self.num_attention_heads],
            &self.hidden_act,
            self.layer_norm_eps,
        )
    }

    /// Its layers' sizes.
    ///
    /// # Errors
    /// An activation that is not implemented.
    pub(super) fn layer(&self) -> Result<EncoderLayerOptions> {
        Ok(EncoderLayerOptions {
            width: self.hidden_size,
            inner: self.intermediate_size,
            eps: self.layer_norm_eps,
            activation: EncoderActivation::from_name(&self.hidden_act)?,
        })
    }

    /// The work of a text of so many tokens.
    pub fn cost(&self, tokens: usize) -> Cost {
        let [width, rows] = [self.hidden_size, tokens].map(|n| n as u64);
        let mut cost = Cost::new("layers");
        linear_layers(&mut cost, rows, width, self.intermediate_size as u64);
        cost.work(rows * (rows + 1) * width, 4 * rows * width);
        cost.repeated(self.num_hidden_layers as u64)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let rows = (self.vocab_size + self.max_position_embeddings + 2) as u64;
        let layer = layer_parameters(self.hidden_size, self.intermediate_size);
        rows * self.hidden_size as u64 + self.num_hidden_layers as u64 * layer
    }
}

impl ClipVisionConfig {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        check(
            &[
                ("hidden_size", self.hidden_size, 1 << 16),
                ("intermediate_size", self.intermediate_size, 1 << 18),
                ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
                ("num_attention_heads", self.num_attention_heads, 1 << 10),
                ("num_channels", self.num_channels, 64),
                ("image_size", self.image_size, 1 << 14),
                ("patch_size", self.patch_size, self.image_size),
            ],
            [self.hidden_size, self.num_attention_heads],
            &self.hidden_act,
            self.layer_norm_eps,
        )
    }

    /// Its layers' sizes.
    ///
    /// # Errors
    /// An activation that is not implemented.
    pub(super) fn layer(&self) -> Result<EncoderLayerOptions> {
        Ok(EncoderLayerOptions {
            width: self.hidden_size,
            inner: self.intermediate_size,
            eps: self.layer_norm_eps,
            activation: EncoderActivation::from_name(&self.hidden_act)?,
        })
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// The work of a picture up to so many layers.
    pub(crate) fn cost(&self, layers: usize) -> Cost {
        let places = self.grid() * self.grid() + 1;
        let [width, places] = [self.hidden_size, places].map(|n| n as u64);
        let patch = (self.num_channels * self.patch_size * self.patch_size) as u64;
        let mut layer = Cost::new("layer");
        linear_layers(&mut layer, places, width, self.intermediate_size as u64);
        layer.work(2 * places * places * width, 4 * places * width);
        let mut all = Cost::new("vision_tower");
        all.add(&layer.repeated(layers as u64));
        all.linear(places, patch, width);
        all
    }

    /// Number of parameters of the encoder up to so many layers.
    pub fn parameters(&self, layers: usize) -> u64 {
        let width = self.hidden_size as u64;
        let patch = (self.num_channels * self.patch_size * self.patch_size) as u64;
        let places = (self.grid() * self.grid() + 1) as u64;
        let layer = layer_parameters(self.hidden_size, self.intermediate_size);
        width + patch * width + places * width + 2 * width + layers as u64 * layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_encoders_have_the_published_sizes() {
        let text = ClipTextConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_attention_heads: 12,
            ..ClipTextConfig::default()
        };
        assert_eq!(text.parameters(), 123_060_480);
        let vision = ClipVisionConfig {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            image_size: 336,
            patch_size: 14,
            ..ClipVisionConfig::default()
        };
        assert_eq!((vision.grid(), vision.parameters(24)), (24, 303_505_408));
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, word) in [
            (r#"{"num_attention_heads": 7}"#, "`num_attention_heads` 7"),
            (r#"{"hidden_act": "relu"}"#, "`hidden_act`"),
            (r#"{"layer_norm_eps": 0}"#, "`layer_norm_eps`"),
            (r#"{"vocab_size": 0}"#, "`vocab_size` is 0"),
        ] {
            let error = ClipTextConfig::from_json(text.as_bytes(), "config.json").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
