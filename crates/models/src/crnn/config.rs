//! `config.json`; EasyOCR's English model where a key is missing.

use brisk_store::TensorSource;
use serde::{Deserialize, Serialize};

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Bounds that keep a corrupt file from asking for all memory.
const LARGEST_WIDTH: usize = 1 << 14;
/// Characters of EasyOCR's English model.
const ENGLISH: &str = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €\
    ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Settings of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrnnConfig {
    /// Channels of the features; the first convolution has an eighth of them.
    pub output_channels: usize,
    /// Width of an LSTM in each direction, and between the two.
    pub hidden_size: usize,
    /// Rows of a picture of a line.
    pub image_height: usize,
    /// The characters, in the order of their classes; class 0 is none.
    pub characters: String,
}

impl Default for CrnnConfig {
    fn default() -> Self {
        Self {
            output_channels: 256,
            hidden_size: 256,
            image_height: 64,
            characters: ENGLISH.to_owned(),
        }
    }
}

impl CrnnConfig {
    /// Values of `model_type` and `architectures`.
    pub(super) const CLASSES: [&str; 2] = ["crnn", "CRNN"];

    /// Keys that are read.
    pub(super) const KEYS: [&str; 4] = [
        "output_channels",
        "hidden_size",
        "image_height",
        "characters",
    ];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// Another network's file, or a value that cannot be honoured, by its key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "model_type", "crnn")?;
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        check_count("output_channels", self.output_channels, LARGEST_WIDTH)?;
        check_count("hidden_size", self.hidden_size, LARGEST_WIDTH)?;
        check_count(
            "characters (their number)",
            self.classes() - 1,
            LARGEST_WIDTH,
        )?;
        let fail = |message: String| Err(Error::Config(message));
        if !self.output_channels.is_multiple_of(8) {
            let found = self.output_channels;
            return fail(format!(
                "`output_channels` is {found}; expected a multiple of 8"
            ));
        }
        // Four halvings, and a kernel of two rows that needs two.
        if !(32..=1024).contains(&self.image_height) || !self.image_height.is_multiple_of(16) {
            let found = self.image_height;
            return fail(format!(
                "`image_height` is {found}; expected a multiple of 16 from 32 to 1024"
            ));
        }
        Ok(())
    }

    /// Classes, with the one for none.
    pub fn classes(&self) -> usize {
        self.characters.chars().count() + 1
    }

    /// Of a file under [plain names](super::plain_names) that comes without a configuration.
    ///
    /// # Errors
    /// A file of another network, or one with other characters than English ones.
    pub fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        let shape = |name: &str| {
            source.info(name).map(|(_, shape)| shape).ok_or_else(|| {
                Error::Config(format!(
                    "the file holds no CRNN: there is no tensor {name:?}"
                ))
            })
        };
        let config = Self {
            output_channels: shape("FeatureExtraction.ConvNet.18.weight")?[0],
            hidden_size: shape("SequenceModeling.1.linear.weight")?[0],
            ..Self::default()
        };
        let classes = shape("Prediction.weight")?[0];
        if classes != config.classes() {
            return Err(Error::Config(format!(
                "a recogniser of {classes} classes; without a config.json beside the file, which lists its \
                 `characters`, expected {} of English",
                config.classes()
            )));
        }
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
            CrnnConfig::from_json(text.as_bytes(), "config.json").map_err(|error| error.to_string())
        };
        assert_eq!(read("{}").unwrap().classes(), 97);
        for (text, word) in [
            (r#"{"model_type": "craft"}"#, "another model"),
            (r#"{"output_channels": 12}"#, "`output_channels` is 12"),
            (r#"{"image_height": 40}"#, "`image_height` is 40"),
            (r#"{"characters": ""}"#, "characters"),
            (r#"{"hidden_size": -1}"#, "hidden_size"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    }
}
