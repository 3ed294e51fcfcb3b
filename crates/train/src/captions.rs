//! Captions of pictures, and what they are learned from.

use std::collections::BTreeSet;

use brisk_pipelines::{EvaluationPictures, KnownPrompts, NamedPicture};
use serde_json::Value;

use crate::data::emoji::{EmojiData, EmojiEntry};
use crate::error::{Error, Result};
use crate::pictures;
use crate::rng::Rng;

/// Pictures of either kind that a model brings along to be measured by.
const MEASURED: usize = 96;
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

/// What a model that was trained on these pictures can be measured by: some of them, and some of those that are held out,
/// spread over the data, whose neighbours look alike; no name twice.
pub(crate) fn evaluation(
    data: &EmojiData,
    training: &[usize],
    held_out: &[usize],
) -> Result<EvaluationPictures> {
    let some = |indices: &[usize]| {
        let mut names = BTreeSet::new();
        let mut own = indices.to_vec();
        own.retain(|index| names.insert(&data.entries[*index].name));
        let count = own.len().min(MEASURED);
        let chosen = (0..count).map(|number| own[number * own.len() / count]);
        let named = chosen.map(|index| {
            Ok(NamedPicture {
                prompt: data.entries[index].name.clone(),
                picture: pictures::original(data, index)?,
            })
        });
        named.collect::<Result<Vec<_>>>()
    };
    Ok(EvaluationPictures {
        trained: some(training)?,
        held_out: some(held_out)?,
    })
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
