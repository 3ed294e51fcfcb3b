//! Captions as the text encoder takes them.

use brisk_text::Tokenizer;
use serde_json::{Value, json};

use crate::error::Result;

/// The token that ends a caption, and the one that it is filled up with.
const END: &str = "</s>";
const FILLING: u32 = 0;

/// What says that nothing stands before a text.
pub(super) fn settings() -> Value {
    json!({"add_bos_token": false, "add_eos_token": false, "legacy": false, "tokenizer_class": "LlamaTokenizer"})
}

/// Makes ids of captions.
pub(super) struct CaptionReader {
    tokenizer: Tokenizer,
    end: u32,
    length: usize,
}

impl CaptionReader {
    /// By a `tokenizer.model`; every caption has `length` ids.
    pub fn new(file: &[u8], length: usize) -> Result<Self> {
        let label = "the tower's tokenizer.model";
        let tokenizer = Tokenizer::from_sentencepiece(file, &settings(), &Value::Null, label)?;
        Ok(Self {
            end: tokenizer.token_id(END).unwrap_or(FILLING),
            tokenizer,
            length,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary_size()
    }

    /// Ids of a caption, whatever its case: its end last where it is cut off.
    pub fn ids(&self, caption: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_plain(&caption.to_lowercase())?;
        ids.truncate(self.length - 1);
        ids.push(self.end);
        ids.resize(self.length, FILLING);
        Ok(ids)
    }
}
