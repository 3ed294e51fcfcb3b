//! Tokenizers in the files that models are published with.

use brisk_store::{parse_json, shown};
use brisk_text::Tokenizer;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::folder::ComponentFolder;

/// The tokenizer in one file.
pub(crate) const FILE: &str = "tokenizer.json";
/// Its vocabulary where it lies in several.
const VOCABULARY: &str = "vocab.json";
/// What is said of it besides.
const SETTINGS: &str = "tokenizer_config.json";

/// Tells that a prompt has more tokens than its model takes.
pub(crate) fn truncated_warning(prompt: &str, tokens: usize) -> String {
    let start: String = prompt.chars().take(40).collect();
    format!("the prompt \"{start}…\" is longer than {tokens} tokens; its end is cut off")
}

/// `tokenizer_config.json`; null where there is none.
///
/// # Errors
/// As [`read_object`].
pub(crate) fn settings(folder: &ComponentFolder) -> Result<Value> {
    match folder.exists(SETTINGS) {
        true => read_object(folder, SETTINGS),
        false => Ok(Value::Null),
    }
}

/// A JSON file that holds a table.
///
/// # Errors
/// A file that is no JSON, or holds something else.
pub(crate) fn read_object(folder: &ComponentFolder, file: &str) -> Result<Value> {
    let value = parse_json(&folder.read(file)?, &folder.label(file))?;
    match value {
        Value::Object(_) => Ok(value),
        other => Err(Error::config(
            folder.label(file),
            format!("found {}, expected an object", shown(&other.to_string())),
        )),
    }
}

/// Whether a tokenizer's files lie in a folder.
pub(crate) fn is_in(folder: &ComponentFolder) -> bool {
    folder.exists(FILE) || folder.exists(VOCABULARY)
}

/// `tokenizer.json`, or the `vocab.json` and `merges.txt` of older tokenizers; `otherwise` says what works
/// without one.
///
/// # Errors
/// Neither is there, or they cannot be read.
pub(crate) fn open(
    folder: &ComponentFolder,
    settings: &Value,
    otherwise: &str,
) -> Result<Tokenizer> {
    if folder.exists(FILE) {
        let bytes = folder.read(FILE)?;
        return Ok(Tokenizer::from_bytes(&bytes, &folder.label(FILE))?);
    }
    if folder.exists(VOCABULARY) && folder.exists("merges.txt") {
        let (vocabulary, merges) = (folder.read(VOCABULARY)?, folder.read("merges.txt")?);
        let class = settings.get("tokenizer_class").and_then(Value::as_str);
        let read = match class.is_some_and(|class| class.starts_with("CLIPTokenizer")) {
            true => Tokenizer::from_clip_vocabulary,
            false => Tokenizer::from_vocabulary,
        };
        let label = folder.label(VOCABULARY);
        return Ok(read(&vocabulary, &merges, settings, &label)?);
    }
    Err(Error::folder(
        folder.place(),
        format!(
            "there is no tokenizer: expected {FILE}, or vocab.json with merges.txt; {otherwise}"
        ),
    ))
}

/// Refuses a tokenizer, in `place`, with ids that a text encoder of so many rows does not have.
///
/// # Errors
/// Both numbers.
pub(crate) fn check_rows(tokenizer: &Tokenizer, rows: usize, place: String) -> Result<()> {
    match tokenizer.highest_id() {
        Some(highest) if highest as usize >= rows => Err(Error::folder(
            place,
            format!(
                "the tokenizer has ids up to {highest}, the text encoder's `vocab_size` is {rows}; they do not \
                 belong together"
            ),
        )),
        _ => Ok(()),
    }
}

/// A special token of `tokenizer_config.json`: a string, or a table with its content.
pub(crate) fn spelling(settings: &Value, key: &str) -> Option<String> {
    let value = settings.get(key)?;
    let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
    Some(text.to_owned())
}
