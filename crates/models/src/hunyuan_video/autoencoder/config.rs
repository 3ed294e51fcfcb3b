//! `vae/config.json`.

use serde::Deserialize;

use crate::config::{check_count, checked, parse};
use crate::{Error, Result};

/// Settings of an autoencoder, under the keys of diffusers' class and with its defaults; the authors' files have some
/// of their own beside.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct VideoAutoencoderConfig {
    /// Colours of the clips that are encoded.
    pub in_channels: usize,
    /// Colours of those that are decoded.
    pub out_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels of each level, full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation: `silu`.
    pub act_fn: String,
    /// Groups of channels that are normalised together.
    pub norm_num_groups: usize,
    /// What latents are multiplied with for the transformer.
    pub scaling_factor: f64,
    /// Pixels of a latent cell.
    pub spatial_compression_ratio: usize,
    /// Frames of a latent frame.
    #[serde(alias = "time_compression_ratio")]
    pub temporal_compression_ratio: usize,
    /// Whether the middle attends.
    pub mid_block_add_attention: bool,
    /// Kinds of the encoder's levels.
    pub down_block_types: Vec<String>,
    /// Kinds of the decoder's levels.
    pub up_block_types: Vec<String>,
}

impl Default for VideoAutoencoderConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 16,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            scaling_factor: 0.476986,
            spatial_compression_ratio: 8,
            temporal_compression_ratio: 4,
            mid_block_add_attention: true,
            down_block_types: vec![DOWN[0].into(); 4],
            up_block_types: vec![UP[0].into(); 4],
        }
    }
}

/// Kinds of levels: diffusers' name and the authors'.
const DOWN: [&str; 2] = ["HunyuanVideoDownBlock3D", "DownEncoderBlockCausal3D"];
const UP: [&str; 2] = ["HunyuanVideoUpBlock3D", "UpDecoderBlockCausal3D"];

impl VideoAutoencoderConfig {
    /// The classes that a configuration names: diffusers' and the authors'.
    pub const CLASSES: [&'static str; 2] = ["AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D"];

    /// The keys that are read, or known to change nothing: the authors' tiles are a matter of each run.
    pub const KEYS: &'static [&'static str] = &[
        "in_channels",
        "out_channels",
        "latent_channels",
        "block_out_channels",
        "layers_per_block",
        "act_fn",
        "norm_num_groups",
        "scaling_factor",
        "spatial_compression_ratio",
        "temporal_compression_ratio",
        "time_compression_ratio",
        "mid_block_add_attention",
        "down_block_types",
        "up_block_types",
        "sample_size",
        "sample_tsize",
        "force_upcast",
    ];

    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Another model's file, or values that cannot be honoured, by their key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: serde_json::Map<String, serde_json::Value> = parse(bytes, label)?;
        if let Some(class) = file.get("_class_name").and_then(|class| class.as_str())
            && !Self::CLASSES.contains(&class)
        {
            return Err(Error::Config(format!(
                "{label}: `_class_name` is {class:?}; expected one of {:?}, this file belongs to another model",
                Self::CLASSES
            )));
        }
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
            ("in_channels", self.in_channels, 64),
            ("out_channels", self.out_channels, 64),
            ("latent_channels", self.latent_channels, 1 << 12),
            ("block_out_channels", self.block_out_channels.len(), 8),
            ("layers_per_block", self.layers_per_block, 64),
            ("norm_num_groups", self.norm_num_groups, 1 << 12),
        ] {
            check_count(key, value, limit)?;
        }
        let fail = |message: String| Err(Error::Config(message));
        let levels = self.block_out_channels.len();
        for channels in &self.block_out_channels {
            check_count("block_out_channels", *channels, 1 << 14)?;
            if !channels.is_multiple_of(self.norm_num_groups) {
                return fail(format!(
                    "`block_out_channels` holds {channels}, which the {} groups of `norm_num_groups` do not divide",
                    self.norm_num_groups
                ));
            }
        }
        for (key, kinds, known) in [
            ("down_block_types", &self.down_block_types, DOWN),
            ("up_block_types", &self.up_block_types, UP),
        ] {
            if let Some(kind) = kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
                return fail(format!("`{key}` holds {kind:?}; expected one of {known:?}"));
            }
            if kinds.len() != levels {
                return fail(format!(
                    "`{key}` has {} levels, `block_out_channels` {levels}",
                    kinds.len()
                ));
            }
        }
        if self.act_fn != "silu" {
            return fail(format!("`act_fn` is {:?}; expected \"silu\"", self.act_fn));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return fail(format!(
                "`scaling_factor` is {}; expected a positive number",
                self.scaling_factor
            ));
        }
        if self.temporal_compression_ratio != 4 {
            return fail(format!(
                "`temporal_compression_ratio` is {}; expected 4",
                self.temporal_compression_ratio
            ));
        }
        let ratio = self.spatial_compression_ratio;
        let most = 1usize << levels;
        if !ratio.is_power_of_two() || ratio < 2 || ratio > most || levels < 3 {
            return fail(format!(
                "`spatial_compression_ratio` is {ratio} with {levels} levels of `block_out_channels`; expected at least \
                 3 levels, and a power of two from 2 to {most}"
            ));
        }
        Ok(())
    }

    /// How many times finer a level's map is in time and space than the one below it: 1 or 2 each.
    pub(super) fn steps(&self, level: usize) -> [usize; 2] {
        let levels = self.block_out_channels.len();
        let space = level < self.spatial_compression_ratio.ilog2() as usize;
        let times = self.temporal_compression_ratio.ilog2() as usize;
        let time = level + 1 + times >= levels && level + 1 < levels;
        [1 + usize::from(time), 1 + usize::from(space)]
    }

    /// Frames of the clip that so many latent frames stand for.
    pub fn clip_frames(&self, latent_frames: usize) -> usize {
        (latent_frames.max(1) - 1) * self.temporal_compression_ratio + 1
    }

    /// Latent frames of a clip.
    pub fn latent_frames(&self, clip_frames: usize) -> usize {
        (clip_frames.max(1) - 1) / self.temporal_compression_ratio + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_levels_of_the_published_size() {
        let config = VideoAutoencoderConfig::default();
        config.validate().unwrap();
        let steps: Vec<[usize; 2]> = (0..4).map(|level| config.steps(level)).collect();
        assert_eq!(steps, [[1, 2], [2, 2], [2, 2], [1, 1]]);
        assert_eq!(
            (config.clip_frames(31), config.latent_frames(121)),
            (121, 31)
        );
        assert_eq!(config.clip_frames(1), 1);
    }

    #[test]
    fn wrong_values_are_named() {
        let read = |text: &str| {
            let read = VideoAutoencoderConfig::from_json(text.as_bytes(), "config.json");
            read.map_err(|error| error.to_string())
        };
        assert!(
            read(r#"{"_class_name": "AutoencoderKLCausal3D", "time_compression_ratio": 4}"#)
                .is_ok()
        );
        for (text, word) in [
            (
                r#"{"block_out_channels": [128, 100, 512, 512]}"#,
                "holds 100",
            ),
            (
                r#"{"block_out_channels": [32, 32]}"#,
                "`down_block_types` has 4",
            ),
            (r#"{"act_fn": "gelu"}"#, "`act_fn`"),
            (
                r#"{"temporal_compression_ratio": 8}"#,
                "`temporal_compression_ratio` is 8",
            ),
            (
                r#"{"spatial_compression_ratio": 12}"#,
                "`spatial_compression_ratio` is 12",
            ),
            (r#"{"scaling_factor": 0}"#, "`scaling_factor`"),
            (r#"{"down_block_types": ["Other"]}"#, "Other"),
            (r#"{"_class_name": "AutoencoderDC"}"#, "another model"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
