//! Words of pictures: where they are and what they say, and the annotation files that tell it.

mod coco_text;
mod found;
mod generic;
mod lines;
mod text_seg;

use std::collections::BTreeMap;
use std::path::Path;

use brisk_store::parse_json;
use serde_json::Value;

use crate::error::{Error, Result};

pub use found::{FoundCharacter, FoundWord};

/// Most words of a picture, points of an outline, characters of a word, and bytes of its text.
pub const MOST_WORDS: usize = 4096;
const MOST_POINTS: usize = 128;
const MOST_CHARACTERS: usize = 256;
const MOST_BYTES: usize = 1024;
/// What a transcription says of a word that nobody can read.
const UNREADABLE: &str = "###";

/// A word in a picture, in its pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// Its outline, from its own top left along its upper edge and back along the lower one.
    pub polygon: Vec<[f64; 2]>,
    /// What it says; none where nobody wrote it down.
    pub text: Option<String>,
    /// Its characters, where their outlines are known.
    pub characters: Vec<WordCharacter>,
    /// Whether it is marked as one that nobody can read.
    pub ignored: bool,
}

/// A character of a word.
#[derive(Clone, Debug, PartialEq)]
pub struct WordCharacter {
    /// Which.
    pub text: String,
    /// Its outline.
    pub polygon: Vec<[f64; 2]>,
}

/// What an annotation file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum WordFile {
    /// The words of one picture.
    One(Vec<Word>),
    /// Of pictures, by the name of their file without folder and ending.
    Many(BTreeMap<String, Vec<Word>>),
}

impl WordFile {
    /// Reads one of the formats that are known: a list of words as JSON, or a JSON line a picture; TextSeg's; COCO-Text's
    /// and its kin; the lines of MLT17. `label` names the file in messages.
    ///
    /// # Errors
    /// A file of none of them, or one that is wrong, by the place in it.
    pub fn read(text: &str, label: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}');
        let is_json = text.trim_start().starts_with(['{', '[']);
        if !is_json {
            return Ok(Self::One(lines::read(text, label)?));
        }
        let mut rows = text.lines().filter(|line| !line.trim().is_empty());
        let first = rows
            .next()
            .and_then(|line| serde_json::from_str::<Value>(line).ok());
        if let (Some(Value::Object(fields)), Some(_)) = (&first, rows.next())
            && fields.contains_key("picture")
        {
            return generic::json_lines(text, label).map(Self::Many);
        }
        let document = parse_json(text.as_bytes(), label)?;
        match &document {
            Value::Object(fields) if fields.contains_key("anns") => {
                coco_text::read(fields, label).map(Self::Many)
            }
            Value::Object(fields) if fields.contains_key("picture") => {
                generic::json_lines(text, label).map(Self::Many)
            }
            Value::Object(fields) if !fields.contains_key("words") => {
                text_seg::read(fields, label).map(Self::One)
            }
            other => generic::read(other, label).map(Self::One),
        }
    }

    /// The words of a picture's file; none where the file speaks of other pictures.
    pub fn of(&self, picture: &Path) -> Option<&[Word]> {
        match self {
            Self::One(words) => Some(words),
            Self::Many(pictures) => pictures
                .get(&key(&picture.to_string_lossy()))
                .map(Vec::as_slice),
        }
    }
}

/// A picture's name without folder and ending.
fn key(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        _ => name.to_owned(),
    }
}

/// A word with what a transcription says of it.
fn word(polygon: Vec<[f64; 2]>, text: Option<&str>) -> Result<Word, String> {
    if text.is_some_and(|text| text.len() > MOST_BYTES) {
        return Err(format!("the text is longer than {MOST_BYTES} bytes"));
    }
    let text = text.map(str::trim);
    Ok(Word {
        polygon,
        text: text
            .filter(|text| !text.is_empty() && *text != UNREADABLE)
            .map(str::to_owned),
        characters: Vec::new(),
        ignored: text == Some(UNREADABLE),
    })
}

/// The corners of an upright box.
fn corners([left, top, right, bottom]: [f64; 4]) -> Vec<[f64; 2]> {
    vec![[left, top], [right, top], [right, bottom], [left, bottom]]
}

/// Places of a flat list x, y, x, y, …
fn flat(value: &Value) -> Result<Vec<[f64; 2]>, String> {
    let numbers: Option<Vec<f64>> = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_f64).collect());
    let numbers = numbers.filter(|list| list.len() >= 6 && list.len().is_multiple_of(2));
    let numbers = numbers.ok_or_else(|| {
        format!(
            "expected a list x, y, x, y, … of 3 points or more, found {}",
            shown(value)
        )
    })?;
    outline(numbers.chunks_exact(2).map(|at| [at[0], at[1]]).collect())
}

/// Refuses outlines of too many points, and numbers that are none or no place of any picture.
fn outline(points: Vec<[f64; 2]>) -> Result<Vec<[f64; 2]>, String> {
    if points.len() > MOST_POINTS {
        return Err(format!(
            "an outline of {} points; at most {MOST_POINTS} are read",
            points.len()
        ));
    }
    let wild = points
        .iter()
        .flatten()
        .find(|at| !at.is_finite() || at.abs() > 1e7);
    match wild {
        Some(at) => Err(format!("{at} is no place of a picture")),
        None => Ok(points),
    }
}

fn shown(value: &Value) -> String {
    brisk_store::shown_within(&value.to_string(), 80)
}

/// Refuses more words than any picture has.
fn counted<T>(words: Vec<T>, label: &str) -> Result<Vec<T>> {
    if words.len() > MOST_WORDS {
        let message = format!(
            "{} words of a picture; at most {MOST_WORDS} are read",
            words.len()
        );
        return Err(Error::config(label, message));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Vec<Word> {
        match WordFile::read(text, "words.json").unwrap() {
            WordFile::One(words) => words,
            WordFile::Many(pictures) => panic!("{pictures:?}"),
        }
    }

    #[test]
    fn every_format_is_told_by_what_it_holds() {
        let square = [[1.0, 2.0], [9.0, 2.0], [9.0, 5.0], [1.0, 5.0]];
        for text in [
            r#"[{"box": [1, 2, 9, 5], "text": "Ab"}]"#,
            r#"{"words": [{"polygon": [[1,2],[9,2],[9,5],[1,5]], "text": "Ab"}]}"#,
            r#"{"0000": {"text": "Ab", "bbox": [1,2,9,2,9,5,1,5], "char": {}}}"#,
            "\u{feff}1,2,9,2,9,5,1,5,Latin,Ab\r\n",
        ] {
            let words = one(text);
            assert_eq!(
                (words.len(), words[0].text.as_deref()),
                (1, Some("Ab")),
                "{text}"
            );
            assert_eq!(words[0].polygon, square, "{text}");
        }
        for text in [
            r#"{"imgs": {"7": {"file_name": "train/a.b.jpg"}}, "anns": {"1": {"image_id": 7, "mask":
               [1,2,9,2,9,5,1,5], "utf8_string": "Ab", "legibility": "legible"}}}"#,
            "{\"picture\": \"x/a.b.png\", \"words\": [{\"box\": [1,2,9,5], \"text\": \"Ab\"}]}\n{\"picture\": \"c.png\", \"words\": []}",
        ] {
            let file = WordFile::read(text, "words").unwrap();
            let words = file.of(Path::new("elsewhere/a.b.webp")).unwrap();
            assert_eq!(
                (&*words[0].polygon, words[0].text.as_deref()),
                (&square[..], Some("Ab"))
            );
            assert!(file.of(Path::new("d.png")).is_none());
        }
    }

    #[test]
    fn unreadable_and_unread_words_are_told_apart() {
        let words =
            one("1,2,9,2,9,5,1,5,Latin,###\n1,2,9,2,9,5,1,5,Latin,\n1,2,9,2,9,5,1,5,Latin,a,b\n");
        assert!(words[0].ignored && words[0].text.is_none());
        assert!(!words[1].ignored && words[1].text.is_none());
        assert_eq!(words[2].text.as_deref(), Some("a,b"));
        let texts = one(r#"[[1,2,9,5], [[1,2],[9,2],[9,5]]]"#);
        assert!(
            texts
                .iter()
                .all(|word| word.text.is_none() && !word.ignored)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, wanted) in [
            (
                "[{\"text\": \"a\"}]",
                "entry 0: neither `polygon` nor `box`",
            ),
            ("[{\"box\": [1,2,3]}]", "entry 0: `box`"),
            (
                "[{\"box\": [1,2,3,4], \"size\": 1}]",
                "nothing reads \"size\"",
            ),
            ("[{\"box\": [1,2,3,1e99]}]", "no place"),
            ("1,2,3\n", "line 1"),
            ("1,2,9,2,9,5,1,x,Latin,a", "line 1"),
            (r#"{"anns": {"1": {"image_id": 3}}, "imgs": {}}"#, "anns.1"),
            (r#"{"0000": {"text": "a"}}"#, "0000"),
            (
                "{\"picture\": \"a\", \"words\": []}\n{\"words\": []}",
                "line 2",
            ),
            ("[1", "words.json"),
        ] {
            let message = WordFile::read(text, "words.json").unwrap_err().to_string();
            assert!(
                message.contains(wanted) && message.contains("words.json"),
                "{message}"
            );
        }
    }
}
