//! Captions as the text encoder takes them.

use brisk_pipelines::families::similarity::CaptionReader;
use serde_json::{Value, json};

use crate::error::Result;

/// What says that nothing stands before a text.
pub(super) fn settings() -> Value {
    json!({"add_bos_token": false, "add_eos_token": false, "legacy": false, "tokenizer_class": "LlamaTokenizer"})
}

/// What reads captions by a `tokenizer.model`; every caption has `length` ids.
pub(super) fn reader(file: &[u8], length: usize) -> Result<CaptionReader> {
    let label = "the tower's tokenizer.model";
    Ok(CaptionReader::new(file, &settings(), length, label)?)
}
