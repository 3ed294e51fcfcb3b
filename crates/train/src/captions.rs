//! Captions of pictures, and what they are learned from.

use std::collections::BTreeSet;

use brisk_pipelines::KnownPrompts;
use serde_json::Value;

use crate::data::emoji::{EmojiData, EmojiEntry};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Keywords that a caption adds at most.
const MAX_TAGS: usize = 4;

/// The text a tokenizer is trained on.
pub(crate) fn lines(data: &EmojiData, training: &[usize]) -> Vec<String> {
    training
        .iter()
        .map(|index| {
            let entry = &data.entries[*index];
            let mut line = entry.name.clone();
            for tag in &entry.tags {
                line.push_str(", ");
                line.push_str(tag);
            }
            line.to_lowercase()
        })
        .collect()
}

/// The size of the vocabulary that the keys of a text encoder's configuration say.
///
/// # Errors
/// There is none.
pub(crate) fn vocabulary(text_encoder: &Value) -> Result<usize> {
    let count = text_encoder.get("vocab_size").and_then(Value::as_u64);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| {
        Error::Recipe("text_encoder.vocab_size is missing; expected a number".to_owned())
    })
}

/// What a model that was trained on these pictures knows.
pub(crate) fn known(data: &EmojiData, training: &[usize]) -> KnownPrompts {
    let entries = || training.iter().map(|index| &data.entries[*index]);
    let names: BTreeSet<String> = entries().map(|entry| entry.name.clone()).collect();
    let keywords = entries().flat_map(|entry| entry.tags.clone());
    KnownPrompts::new(names.into_iter().collect(), keywords)
}

/// A caption: for a share of `name_probability` the name alone, else with some keywords.
pub(crate) fn caption(entry: &EmojiEntry, name_probability: f64, rng: &mut Rng) -> String {
    let mut caption = entry.name.clone();
    if rng.chance(name_probability) || entry.tags.is_empty() {
        return caption;
    }
    let count = 1 + rng.below(entry.tags.len().min(MAX_TAGS));
    for position in rng.permutation(entry.tags.len()).into_iter().take(count) {
        caption.push_str(", ");
        caption.push_str(&entry.tags[position]);
    }
    caption
}
