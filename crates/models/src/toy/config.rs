//! `velocity_model/config.json`.

use serde::Deserialize;

use crate::config::{check_count, checked, expect_kind, parse};
use crate::{Error, Result};

/// Most words, and longest side.
const LARGEST: usize = 4096;

/// Settings of a toy network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ToyConfig {
    /// The words that it has a picture of.
    pub words: Vec<String>,
    /// Side of the pictures, in pixels.
    pub side: usize,
}

impl ToyConfig {
    /// Reads and checks a `config.json`; `label` names the file in messages.
    ///
    /// # Errors
    /// Another network's file, or a value that makes no sense, by its key.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        expect_kind(bytes, label, "_class_name", "ToyVelocityModel")?;
        let config: Self = parse(bytes, label)?;
        checked(config.validate(), label)?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        check_count("words", self.words.len(), LARGEST)?;
        check_count("side", self.side, LARGEST)?;
        match self.words.iter().find(|word| word.trim().is_empty()) {
            Some(word) => Err(Error::Config(format!(
                "`words` holds {word:?}; expected words with letters"
            ))),
            None => Ok(()),
        }
    }

    /// Values of a picture: side · side · 3.
    pub fn values(&self) -> usize {
        3 * self.side * self.side
    }

    /// Number of parameters: a picture a word, and the spread.
    pub fn parameters(&self) -> u64 {
        self.words.len() as u64 * self.values() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_named() {
        let read = |text: &str| {
            let read = ToyConfig::from_json(text.as_bytes(), "config.json");
            read.map_err(|error| error.to_string())
        };
        assert!(read(r#"{"words": ["red"], "side": 4}"#).is_ok());
        for (text, word) in [
            (r#"{"words": [], "side": 4}"#, "`words` is 0"),
            (r#"{"words": [" "], "side": 4}"#, "letters"),
            (r#"{"words": ["red"], "side": 5000}"#, "`side` is 5000"),
            (r#"{"words": "red", "side": 4}"#, "`words`"),
            (r#"{"_class_name": "Other"}"#, "another model"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
