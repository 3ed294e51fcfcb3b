//! COCO-Text 2 (`cocotext.v2.json`), and files made like it, as TextOCR's.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Word, corners, counted, flat, key, outline, shown, word};
use crate::error::{Error, Result};

/// Under which keys outlines stand.
const OUTLINES: [&str; 3] = ["mask", "polygon", "points"];

/// `imgs` by id with `file_name`, and `anns` by id with `image_id`, an outline or `bbox` (x, y, width, height),
/// `utf8_string` and `legibility`.
pub(super) fn read(
    fields: &Map<String, Value>,
    label: &str,
) -> Result<BTreeMap<String, Vec<Word>>> {
    let part = |name: &str| {
        let found = fields.get(name).and_then(Value::as_object);
        found.ok_or_else(|| Error::config(label, format!("`{name}` is no object")))
    };
    let (pictures, annotations) = (part("imgs")?, part("anns")?);
    let mut found: BTreeMap<String, Vec<Word>> = BTreeMap::new();
    for picture in pictures.values() {
        if let Some(name) = name_of(picture) {
            found.entry(name).or_default();
        }
    }
    for (id, annotation) in annotations {
        let wrong = |problem: String| Error::config(label, format!("anns.{id}: {problem}"));
        let picture = match annotation.get("image_id") {
            Some(Value::String(picture)) => picture.clone(),
            Some(Value::Number(picture)) => picture.to_string(),
            _ => return Err(wrong("there is no `image_id`".to_owned())),
        };
        let name = pictures
            .get(&picture)
            .and_then(name_of)
            .ok_or_else(|| wrong(format!("no picture of `imgs` has the id {picture}")))?;
        let word = of(annotation).map_err(wrong)?;
        found.entry(name).or_default().push(word);
    }
    found
        .into_iter()
        .map(|(name, words)| Ok((name, counted(words, label)?)))
        .collect()
}

fn name_of(picture: &Value) -> Option<String> {
    let name = picture
        .get("file_name")
        .or_else(|| picture.get("filename"))?;
    name.as_str().map(key)
}

fn of(annotation: &Value) -> Result<Word, String> {
    let outlines = OUTLINES
        .iter()
        .find_map(|name| Some((name, annotation.get(name)?)));
    let polygon = match (outlines, annotation.get("bbox")) {
        (Some((name, value)), _) => {
            flat(value).map_err(|problem| format!("`{name}`: {problem}"))?
        }
        (None, Some(bounds)) => {
            let numbers: Option<Vec<f64>> = bounds
                .as_array()
                .and_then(|list| list.iter().map(Value::as_f64).collect());
            let four: Option<[f64; 4]> = numbers.and_then(|numbers| numbers.try_into().ok());
            let [left, top, width, height] = four.ok_or_else(|| {
                format!(
                    "`bbox`: expected x, y, width, height, found {}",
                    shown(bounds)
                )
            })?;
            outline(corners([left, top, left + width, top + height]))?
        }
        (None, None) => return Err("neither an outline nor `bbox`".to_owned()),
    };
    let mut word = word(
        polygon,
        annotation.get("utf8_string").and_then(Value::as_str),
    )?;
    word.ignored |= annotation.get("legibility").and_then(Value::as_str) == Some("illegible");
    Ok(word)
}
