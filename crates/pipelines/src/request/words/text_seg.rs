//! TextSeg's `NAME_anno.json`: an object a word, with its characters.

use serde_json::{Map, Value};

use super::{MOST_CHARACTERS, Word, WordCharacter, corners, counted, flat, outline, shown, word};
use crate::error::{Error, Result};

/// Under which keys outlines stand.
const OUTLINES: [&str; 3] = ["bbox", "bpoly", "polygon"];

/// `{"0000": {"text", "bbox": [x, y, …], "char": {"00": {"text", "bbox", …}}}}`.
pub(super) fn read(fields: &Map<String, Value>, label: &str) -> Result<Vec<Word>> {
    let read = |(name, entry): (&String, &Value)| {
        of(entry).map_err(|problem| Error::config(label, format!("{name}: {problem}")))
    };
    counted(fields.iter().map(read).collect::<Result<_>>()?, label)
}

fn of(entry: &Value) -> Result<Word, String> {
    let mut word = word(polygon(entry)?, entry.get("text").and_then(Value::as_str))?;
    let characters = entry.get("char").and_then(Value::as_object);
    for (name, character) in characters.into_iter().flatten().take(MOST_CHARACTERS) {
        let text = character
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let polygon = polygon(character).map_err(|problem| format!("char.{name}: {problem}"))?;
        word.characters.push(WordCharacter {
            text: text.to_owned(),
            polygon,
        });
    }
    word.ignored |= entry
        .get("ignore")
        .is_some_and(|value| value == 1 || value == true);
    Ok(word)
}

/// Corners as a flat list, or left, top, right, bottom.
fn polygon(entry: &Value) -> Result<Vec<[f64; 2]>, String> {
    let found = OUTLINES
        .iter()
        .find_map(|name| Some((name, entry.get(name)?)));
    let (name, value) = found.ok_or_else(|| {
        format!(
            "expected an object with `text` and `bbox`, as TextSeg has for each word; found {}",
            shown(entry)
        )
    })?;
    let four: Option<Vec<f64>> = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_f64).collect());
    let read = match four.and_then(|numbers| <[f64; 4]>::try_from(numbers).ok()) {
        Some(bounds) => outline(corners(bounds)),
        None => flat(value),
    };
    read.map_err(|problem| format!("`{name}`: {problem}"))
}
