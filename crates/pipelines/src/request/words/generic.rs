//! brisk's own format: a list of words, or a line with one for each picture.

use std::collections::BTreeMap;

use brisk_store::parse_json;
use serde_json::{Map, Value};

use super::{MOST_CHARACTERS, Word, WordCharacter, corners, counted, key, outline, shown, word};
use crate::error::{Error, Result};

const KEYS: [&str; 5] = ["polygon", "box", "text", "characters", "ignore"];

/// A list, or an object whose `words` is one, of boxes `[left, top, right, bottom]`, of outlines, and of objects with
/// `polygon` or `box`, `text`, `characters` (`text` with `polygon` or `box`) and `ignore`.
pub(super) fn read(document: &Value, label: &str) -> Result<Vec<Word>> {
    let listed = document.get("words").unwrap_or(document);
    let Some(entries) = listed.as_array() else {
        let message = format!(
            "expected a list of words: objects with polygon or box, and text; found {}",
            shown(listed)
        );
        return Err(Error::config(label, message));
    };
    let read = |(index, entry): (usize, &Value)| {
        let word = match entry {
            Value::Object(fields) => of_fields(fields),
            other => place(other).and_then(|polygon| word(polygon, None)),
        };
        word.map_err(|problem| Error::config(label, format!("entry {index}: {problem}")))
    };
    counted(
        entries
            .iter()
            .enumerate()
            .map(read)
            .collect::<Result<_>>()?,
        label,
    )
}

/// A line a picture: `{"picture": NAME, "words": [...]}`.
pub(super) fn json_lines(text: &str, label: &str) -> Result<BTreeMap<String, Vec<Word>>> {
    let mut found: BTreeMap<String, Vec<Word>> = BTreeMap::new();
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    for (number, line) in lines {
        let label = format!("{label}, line {}", number + 1);
        let document = parse_json(line.as_bytes(), &label)?;
        let Some(name) = document.get("picture").and_then(Value::as_str) else {
            let message = "there is no `picture`, the name of its file";
            return Err(Error::config(&label, message));
        };
        let Some(words) = document.get("words") else {
            return Err(Error::config(&label, "there are no `words`"));
        };
        found
            .entry(key(name))
            .or_default()
            .extend(read(words, &label)?);
    }
    Ok(found)
}

fn of_fields(fields: &Map<String, Value>) -> Result<Word, String> {
    if let Some(key) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "nothing reads {key:?}; expected {}",
            KEYS.join(", ")
        ));
    }
    let text = match fields.get("text") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(other) => return Err(format!("`text`: expected a text, found {}", shown(other))),
    };
    let mut word = word(place_of(fields)?, text)?;
    match fields.get("ignore") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(ignored)) => word.ignored |= ignored,
        Some(other) => {
            return Err(format!(
                "`ignore`: expected true or false, found {}",
                shown(other)
            ));
        }
    }
    if let Some(characters) = fields.get("characters") {
        let list = characters
            .as_array()
            .ok_or_else(|| format!("`characters`: expected a list, found {}", shown(characters)))?;
        if list.len() > MOST_CHARACTERS {
            return Err(format!(
                "{} characters; at most {MOST_CHARACTERS} are read",
                list.len()
            ));
        }
        let read = |(index, entry): (usize, &Value)| {
            let fields = entry
                .as_object()
                .ok_or("expected an object with text and box".to_owned());
            let read = fields.and_then(|fields| {
                let text = fields
                    .get("text")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                Ok(WordCharacter {
                    text: text.to_owned(),
                    polygon: place_of(fields)?,
                })
            });
            read.map_err(|problem| format!("character {index}: {problem}"))
        };
        word.characters = list
            .iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()?;
    }
    Ok(word)
}

fn place_of(fields: &Map<String, Value>) -> Result<Vec<[f64; 2]>, String> {
    match (fields.get("polygon"), fields.get("box")) {
        (Some(polygon), _) => place(polygon).map_err(|problem| format!("`polygon`: {problem}")),
        (None, Some(bounds)) => place(bounds).map_err(|problem| format!("`box`: {problem}")),
        (None, None) => Err("neither `polygon` nor `box` says where it is".to_owned()),
    }
}

/// A box of four numbers, or an outline of points.
fn place(value: &Value) -> Result<Vec<[f64; 2]>, String> {
    let wrong = || {
        format!(
            "expected [left, top, right, bottom] or a list of [x, y], found {}",
            shown(value)
        )
    };
    let list = value.as_array().ok_or_else(wrong)?;
    let numbers = |list: &[Value]| -> Option<Vec<f64>> { list.iter().map(Value::as_f64).collect() };
    let points = match numbers(list) {
        Some(numbers) => {
            let bounds: [f64; 4] = numbers.try_into().map_err(|_| wrong())?;
            corners(bounds)
        }
        None => {
            let point =
                |entry: &Value| -> Option<[f64; 2]> { numbers(entry.as_array()?)?.try_into().ok() };
            list.iter()
                .map(point)
                .collect::<Option<Vec<_>>>()
                .ok_or_else(wrong)?
        }
    };
    if points.len() < 3 {
        return Err(wrong());
    }
    outline(points)
}
