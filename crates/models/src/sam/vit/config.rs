//! Settings of the ViT.

use serde::Deserialize;

use crate::config::check_count;
use crate::sam::config::{
    LARGEST_SIDE, LARGEST_WIDTH, MOST_LAYERS, activation, check_epsilon, check_multiple,
};
use crate::{Error, Result};

/// Image encoders that the authors published: name, width, layers, heads and layers that see the whole frame.
const PUBLISHED: [(&str, usize, usize, usize, [usize; 4]); 3] = [
    ("ViT-B", 768, 12, 12, [2, 5, 8, 11]),
    ("ViT-L", 1024, 24, 16, [5, 11, 17, 23]),
    ("ViT-H", 1280, 32, 16, [7, 15, 23, 31]),
];

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

    /// The name under which the authors published one of this width and so many layers.
    pub fn published(&self) -> Option<&'static str> {
        let found = PUBLISHED
            .iter()
            .find(|size| [size.1, size.2] == [self.hidden_size, self.num_hidden_layers]);
        found.map(|size| size.0)
    }

    /// The published one of a width and so many layers.
    ///
    /// # Errors
    /// None is; the message lists those that are.
    pub(in crate::sam) fn of_size([width, layers]: [usize; 2]) -> Result<Self> {
        let known = PUBLISHED
            .iter()
            .find(|size| [size.1, size.2] == [width, layers]);
        let Some((_, _, _, heads, global)) = known else {
            let known =
                PUBLISHED.map(|(name, width, layers, ..)| format!("{name} ({width}, {layers})"));
            return Err(Error::Config(format!(
                "an image encoder of width {width} and {layers} layers; without a config.json beside the file, \
                 expected {}",
                known.join(", ")
            )));
        };
        Ok(Self {
            hidden_size: width,
            num_hidden_layers: layers,
            num_attention_heads: *heads,
            global_attn_indexes: global.to_vec(),
            ..Self::default()
        })
    }

    /// Checks the values by themselves.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub(in crate::sam) fn validate(&self) -> Result<()> {
        for (key, value, limit) in [
            ("hidden_size", self.hidden_size, LARGEST_WIDTH),
            ("output_channels", self.output_channels, LARGEST_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            (
                "num_attention_heads",
                self.num_attention_heads,
                LARGEST_WIDTH,
            ),
            ("image_size", self.image_size, LARGEST_SIDE),
            ("patch_size", self.patch_size, LARGEST_SIDE),
            ("num_pos_feats", self.num_pos_feats, LARGEST_WIDTH),
            ("mlp_dim", self.inner(), LARGEST_WIDTH),
            // A window of one more would be one of zeros.
            (
                "window_size + 1",
                self.window_size.saturating_add(1),
                LARGEST_SIDE,
            ),
        ] {
            check_count(&format!("vision_config.{key}"), value, limit)?;
        }
        activation("vision_config.hidden_act", &self.hidden_act)?;
        check_multiple(
            "vision_config.hidden_size",
            self.hidden_size,
            "num_attention_heads",
            self.num_attention_heads,
        )?;
        check_multiple(
            "vision_config.image_size",
            self.image_size,
            "patch_size",
            self.patch_size,
        )?;
        if self.num_channels != 3 {
            return Err(Error::Config(format!(
                "`vision_config.num_channels` is {}; expected 3, as red, green and blue",
                self.num_channels
            )));
        }
        check_epsilon("vision_config.layer_norm_eps", self.layer_norm_eps)
    }
}
