//! `config.json`; the authors publish none, and where a key is missing the network is theirs.

use brisk_store::TensorSource;
use serde::{Deserialize, Serialize};

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 14;

/// Widths of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CraftConfig {
    /// Channels of the five stages of VGG16.
    pub stage_channels: [usize; 5],
    /// Channels behind the dilated convolution.
    pub deep_channels: usize,
    /// Channels behind each join, the deepest first; each is half as wide as the first convolution of its join.
    pub join_channels: [usize; 4],
    /// Channels of the last convolutions before the maps.
    pub head_channels: [usize; 2],
}

impl Default for CraftConfig {
    fn default() -> Self {
        Self {
            stage_channels: [64, 128, 256, 512, 512],
            deep_channels: 1024,
            join_channels: [256, 128, 64, 32],
            head_channels: [32, 16],
        }
    }
}

impl CraftConfig {
    /// Values of `model_type` and `architectures`.
    pub(super) const CLASSES: [&str; 2] = ["craft", "CRAFT"];

    /// Keys that are read.
    pub(super) const KEYS: [&str; 4] = [
        "stage_channels",
        "deep_channels",
        "join_channels",
        "head_channels",
    ];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Another network's file, or a value that cannot be honoured, by its key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "model_type", "craft")?;
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks the widths.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        let lists: [(&str, &[usize]); 3] = [
            ("stage_channels", &self.stage_channels),
            ("join_channels", &self.join_channels),
            ("head_channels", &self.head_channels),
        ];
        for (key, widths) in lists {
            for (index, width) in widths.iter().enumerate() {
                check_count(&format!("{key}[{index}]"), *width, LARGEST_WIDTH)?;
            }
        }
        check_count("deep_channels", self.deep_channels, LARGEST_WIDTH)
    }

    /// The widths of a file under [plain names](super::plain_names).
    ///
    /// # Errors
    /// A file of another network, by the first tensor that is missing.
    pub fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        let width = |name: &str| {
            let shape = source.info(name).map(|(_, shape)| shape);
            shape
                .and_then(|shape| shape.first().copied())
                .ok_or_else(|| {
                    Error::Config(format!(
                        "the file holds no CRAFT: there is no tensor {name:?}"
                    ))
                })
        };
        let stages = [
            "basenet.slice1.0.weight",
            "basenet.slice1.7.weight",
            "basenet.slice2.14.weight",
            "basenet.slice3.24.weight",
            "basenet.slice4.34.weight",
        ];
        let mut config = Self::default();
        for (into, name) in config.stage_channels.iter_mut().zip(stages) {
            *into = width(name)?;
        }
        config.deep_channels = width("basenet.slice5.1.weight")?;
        for (index, into) in config.join_channels.iter_mut().enumerate() {
            *into = width(&format!("upconv{}.conv.3.weight", index + 1))?;
        }
        config.head_channels = [width("conv_cls.0.weight")?, width("conv_cls.4.weight")?];
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_named() {
        let read = |text: &str| {
            CraftConfig::from_json(text.as_bytes(), "config.json")
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("{}").unwrap(), CraftConfig::default());
        for (text, word) in [
            (r#"{"model_type": "sam"}"#, "another model"),
            (r#"{"stage_channels": [1, 2, 3]}"#, "stage_channels"),
            (
                r#"{"join_channels": [1, 2, 3, 0]}"#,
                "`join_channels[3]` is 0",
            ),
            (r#"{"deep_channels": 1e9}"#, "deep_channels"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    }
}
