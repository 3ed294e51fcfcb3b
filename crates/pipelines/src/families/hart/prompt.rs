//! Prompts as HART wants them: padded to a fixed number of tokens, behind the tokens of a system prompt.

use brisk_text::Tokenizer;

use crate::error::{Error, Result};
use crate::folder::ComponentFolder;
use crate::tokenizer;

/// A tokenizer with what padding needs.
#[derive(Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    padding: u32,
    /// Whether padding stands before the text.
    left: bool,
}

/// A prompt of exactly so many tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Which are no padding. A token of padding that the prompt itself spells is padding too.
    pub real: Vec<bool>,
    /// Whether the prompt's end was cut off.
    pub truncated: bool,
}

impl PromptTokenizer {
    /// From the files beside a text encoder with a table of `rows` rows.
    ///
    /// # Errors
    /// Files that are missing or damaged, or do not say how prompts are padded.
    pub fn open(folder: &ComponentFolder, rows: usize) -> Result<Self> {
        let settings = tokenizer::settings(folder)?;
        let otherwise = "the tokenizer's files lie in the text encoder's folder";
        let read = tokenizer::open(folder, &settings, otherwise)?;
        let wrong = |message: String| Error::folder(folder.place(), message);
        tokenizer::check_rows(&read, rows, folder.place())?;
        let Some(spelt) = tokenizer::spelling(&settings, "pad_token") else {
            return Err(wrong(
                "tokenizer_config.json has no `pad_token`; expected the token that short prompts are \
                 filled up with, such as \"<|endoftext|>\""
                    .to_owned(),
            ));
        };
        let Some(padding) = read.token_id(&spelt) else {
            return Err(wrong(format!(
                "tokenizer_config.json: `pad_token` is {spelt:?}, which is none of the tokenizer's {} tokens",
                read.vocabulary_size()
            )));
        };
        let side = settings.get("padding_side").map(|side| side.as_str());
        let left = match side {
            None | Some(Some("right")) => false,
            Some(Some("left")) => true,
            Some(_) => {
                return Err(wrong(format!(
                    "tokenizer_config.json: `padding_side` is {}; expected \"left\" or \"right\"",
                    settings["padding_side"]
                )));
            }
        };
        Ok(Self::new(read, padding, left))
    }

    /// Of a tokenizer at hand; `left` says whether `padding` stands before the text.
    pub fn new(tokenizer: Tokenizer, padding: u32, left: bool) -> Self {
        Self {
            tokenizer,
            padding,
            left,
        }
    }

    /// A prompt of `length` tokens.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn prompt(&self, text: &str, length: usize) -> Result<EncodedPrompt> {
        let (mut ids, truncated) = self.tokenizer.encode_truncated(text, length)?;
        let filling = vec![self.padding; length.saturating_sub(ids.len())];
        let place = if self.left { 0 } else { ids.len() };
        ids.splice(place..place, filling);
        Ok(EncodedPrompt {
            real: ids.iter().map(|id| *id != self.padding).collect(),
            ids,
            truncated,
        })
    }

    /// The tokens of a system prompt, at most `length`.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub fn system(&self, text: &str, length: usize) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_truncated(text, length)?.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use brisk_store::ModelFolder;
    use brisk_text::train_bpe;

    use super::*;

    fn place(folder: &Path) -> ComponentFolder {
        ComponentFolder::new(&ModelFolder::Disk(folder.to_owned()), "")
    }

    fn written(folder: &Path, settings: &str) -> Result<PromptTokenizer> {
        let lines = ["red heart", "red apple", "green heart"].map(String::from);
        std::fs::write(
            folder.join("tokenizer.json"),
            train_bpe(&lines, 300).unwrap(),
        )
        .unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), settings).unwrap();
        PromptTokenizer::open(&place(folder), 400)
    }

    #[test]
    fn prompts_are_filled_up_on_their_side() {
        let folder = tempfile::tempdir().unwrap();
        let right = written(folder.path(), r#"{"pad_token": "<pad>"}"#).unwrap();
        let text = right.system("red heart", 100).unwrap();
        let count = text.len();
        let found = right.prompt("red heart", count + 3).unwrap();
        assert_eq!(found.ids[..count], text[..]);
        assert_eq!(found.real, [vec![true; count], vec![false; 3]].concat());
        let settings = r#"{"pad_token": {"content": "<pad>"}, "padding_side": "left"}"#;
        let left = written(folder.path(), settings).unwrap();
        let found = left.prompt("red heart", count + 3).unwrap();
        assert_eq!(found.ids[3..], text[..]);
        assert_eq!(found.real, [vec![false; 3], vec![true; count]].concat());
        let cut = left.prompt("red heart red heart", count).unwrap();
        assert!(cut.truncated && cut.ids.len() == count && !found.truncated);
        // What the prompt spells as padding is padding.
        let spelt = left.prompt("<pad>", 100).unwrap();
        assert!(spelt.real.iter().filter(|real| **real).count() < 100);
    }

    #[test]
    fn what_padding_needs_is_asked_for_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (settings, words) in [
            ("{}", "`pad_token`"),
            (r#"{"pad_token": null}"#, "`pad_token`"),
            (r#"{"pad_token": "<nothing>"}"#, "\"<nothing>\""),
            (
                r#"{"pad_token": "<pad>", "padding_side": "both"}"#,
                "`padding_side`",
            ),
        ] {
            let error = written(folder.path(), settings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        written(folder.path(), r#"{"pad_token": "<pad>"}"#).unwrap();
        let error = PromptTokenizer::open(&place(folder.path()), 10)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`vocab_size` is 10"), "{error}");
    }
}
