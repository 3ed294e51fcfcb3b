//! A SigLIP configuration (arXiv 2303.15343), which the tower's file names.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{check_count, checked, parse};
use crate::{Error, Result};

/// Sizes of SigLIP's vision encoder; where a key is missing, the default of its class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SiglipConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers, of which all but the last are run.
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

impl Default for SiglipConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: "gelu_pytorch_tanh".to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

impl SiglipConfig {
    /// Of the published model of this name, with or without its owner's; none of another.
    pub fn published(name: &str) -> Option<Self> {
        match name.rsplit('/').next()? {
            "siglip-large-patch16-256" => Some(Self {
                hidden_size: 1024,
                intermediate_size: 4096,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                image_size: 256,
                ..Self::default()
            }),
            "siglip-so400m-patch14-384" => Some(Self {
                hidden_size: 1152,
                intermediate_size: 4304,
                num_hidden_layers: 27,
                num_attention_heads: 16,
                image_size: 384,
                patch_size: 14,
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Reads a `config.json` of SigLIP, or of its vision half; `label` names it in messages.
    ///
    /// # Errors
    /// Values of a wrong type, outside their range, or of what is not implemented, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: Map<String, Value> = parse(bytes, label)?;
        let config = match file.get("vision_config") {
            Some(vision) => parse(vision.to_string().as_bytes(), label),
            None => parse(bytes, label),
        };
        let config: Self = config?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("image_size", self.image_size, 1 << 14),
            ("patch_size", self.patch_size, self.image_size),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        if self.num_hidden_layers < 2 {
            return fail(
                "`num_hidden_layers` is 1; expected at least 2, as the last one is not run".into(),
            );
        }
        if self.num_channels != 3 {
            return fail(format!(
                "`num_channels` is {}; expected 3",
                self.num_channels
            ));
        }
        let heads = (self.hidden_size, self.num_attention_heads);
        check_layers("", heads, &self.hidden_act, self.layer_norm_eps)
    }

    /// Patches along a side of a picture; pixels that do not fill one are left out.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Layers that are run.
    pub fn layers(&self) -> usize {
        self.num_hidden_layers.saturating_sub(1)
    }

    /// Values of the layers that are run.
    pub fn parameters(&self) -> u64 {
        let [width, inner, patch, grid] = [
            self.hidden_size,
            self.intermediate_size,
            self.patch_size,
            self.grid(),
        ]
        .map(|size| size as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let embeddings = linear(3 * patch * patch, width) + grid * grid * width;
        let layer = 4 * linear(width, width) + linear(width, inner) + linear(inner, width);
        embeddings + self.layers() as u64 * (layer + 4 * width)
    }
}

/// Sizes of SigLIP's text encoder; where a key is missing, the default of its class.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SiglipTextConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Tokens that every text is filled up to.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: String,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl Default for SiglipTextConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            vocab_size: 32_000,
            max_position_embeddings: 64,
            hidden_act: "gelu_pytorch_tanh".to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

#[derive(Deserialize)]
struct TextFile {
    #[serde(default)]
    text_config: SiglipTextConfig,
}

impl SiglipTextConfig {
    /// Reads the text half of a `config.json` of SigLIP; `label` names it in messages.
    ///
    /// # Errors
    /// Values of a wrong type, outside their range, or of what is not implemented, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let config = parse::<TextFile>(bytes, label)?.text_config;
        checked(config.validate(), label)?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("text_config.hidden_size", self.hidden_size, 1 << 16),
            (
                "text_config.intermediate_size",
                self.intermediate_size,
                1 << 18,
            ),
            (
                "text_config.num_hidden_layers",
                self.num_hidden_layers,
                1 << 10,
            ),
            (
                "text_config.num_attention_heads",
                self.num_attention_heads,
                1 << 10,
            ),
            ("text_config.vocab_size", self.vocab_size, 1 << 24),
            (
                "text_config.max_position_embeddings",
                self.max_position_embeddings,
                1 << 16,
            ),
        ] {
            check_count(key, value, limit)?;
        }
        let heads = (self.hidden_size, self.num_attention_heads);
        check_layers("text_config.", heads, &self.hidden_act, self.layer_norm_eps)
    }

    /// Number of parameters, with a projection to vectors of `width` channels.
    pub fn parameters(&self, width: usize) -> u64 {
        let [hidden, inner, layers, words, places, width] = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.vocab_size,
            self.max_position_embeddings,
            width,
        ]
        .map(|size| size as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let layer = 4 * linear(hidden, hidden) + linear(hidden, inner) + linear(inner, hidden);
        (words + places) * hidden
            + layers * (layer + 4 * hidden)
            + 2 * hidden
            + linear(hidden, width)
    }
}

/// Refuses sizes and functions of an encoder's layers, under keys that begin with `prefix`, that are not SigLIP's.
fn check_layers(
    prefix: &str,
    (hidden, heads): (usize, usize),
    activation: &str,
    eps: f64,
) -> Result<()> {
    let fail = |message: String| Err(Error::Config(message));
    if !hidden.is_multiple_of(heads) {
        return fail(format!(
            "`{prefix}num_attention_heads` {heads} does not divide `{prefix}hidden_size` {hidden}"
        ));
    }
    if activation != "gelu_pytorch_tanh" {
        return fail(format!(
            "`{prefix}hidden_act` is {activation:?}; expected \"gelu_pytorch_tanh\""
        ));
    }
    if !(eps.is_finite() && eps > 0.0) {
        return fail(format!(
            "`{prefix}layer_norm_eps` is {eps}; expected a positive number"
        ));
    }
    Ok(())
}
