//! What shows a model what to find in a picture, and files of it.

use brisk_store::parse_json;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Most prompts of one request, and most points of one prompt.
pub const MOST_PROMPTS: usize = 4096;
const MOST_POINTS: usize = 1024;
/// Keys of a prompt in a file.
const KEYS: [&str; 4] = ["name", "box", "points", "labels"];

/// One thing to find, shown by at least a point or a box, in pixels of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskPrompt {
    /// What it is called.
    pub name: Option<String>,
    /// Points, and whether they are in it.
    pub points: Vec<([f64; 2], bool)>,
    /// Left, top, right and bottom of a box around it.
    pub bounds: Option<[f64; 4]>,
}

impl MaskPrompt {
    /// The prompts of a JSON file: a list, or an object whose `boxes` is one, of boxes
    /// `[left, top, right, bottom]` and of objects with `box`, `points` (a list of `[x, y]`), their `labels` (1:
    /// in it, 0: not; all 1 where left out) and `name`. `label` names the file in messages.
    ///
    /// # Errors
    /// Something else, by the number of the prompt from 0 on and its key.
    pub fn read_all(text: &str, label: &str) -> Result<Vec<Self>> {
        let document = parse_json(text.as_bytes(), label)?;
        let wrong = |message: String| Error::config(label, message);
        let listed = document.get("boxes").unwrap_or(&document);
        let Some(entries) = listed.as_array() else {
            return Err(wrong(format!(
                "expected a list of boxes [left, top, right, bottom] or of objects with box, points, labels and \
                 name, found {}",
                kind(listed)
            )));
        };
        if entries.is_empty() || entries.len() > MOST_PROMPTS {
            return Err(wrong(format!(
                "it holds {} boxes; expected 1 to {MOST_PROMPTS}",
                entries.len()
            )));
        }
        let read = |(index, entry): (usize, &Value)| {
            let prompt = match entry {
                Value::Object(fields) => Self::of_fields(fields),
                other => four(other).map(|bounds| Self {
                    bounds: Some(bounds),
                    ..Self::default()
                }),
            };
            prompt.map_err(|problem| wrong(format!("entry {index}: {problem}")))
        };
        entries.iter().enumerate().map(read).collect()
    }

    fn of_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        if let Some(key) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let known = KEYS.join(", ");
            return Err(format!("nothing reads {key:?}; expected {known}"));
        }
        let at = |key: &str| fields.get(key).filter(|value| !value.is_null());
        let under = |key: &'static str| move |problem: String| format!("`{key}`: {problem}");
        let name = match at("name") {
            None => None,
            Some(Value::String(name)) if name.len() <= 256 => Some(name.clone()),
            Some(other) => {
                let found = kind(other);
                return Err(format!(
                    "`name`: expected a text of at most 256 bytes, found {found}"
                ));
            }
        };
        let bounds = at("box").map(four).transpose().map_err(under("box"))?;
        let places = match at("points") {
            None => Vec::new(),
            Some(value) => {
                let list = value
                    .as_array()
                    .ok_or("`points`: expected a list of [x, y]")?;
                let places = list.iter().map(numbers::<2>);
                places
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(under("points"))?
            }
        };
        let labels = match at("labels") {
            None => vec![true; places.len()],
            Some(value) => {
                let list = value.as_array().into_iter().flatten();
                let labels = list.map(|label| match label.as_u64() {
                    Some(label @ 0..=1) => Ok(label == 1),
                    _ => Err(format!(
                        "`labels`: {label} is neither 1 (in it) nor 0 (not in it)"
                    )),
                });
                labels.collect::<Result<Vec<_>, _>>()?
            }
        };
        if labels.len() != places.len() {
            let (labels, points) = (labels.len(), places.len());
            return Err(format!("`labels`: {labels} labels for {points} points"));
        }
        let points = places.into_iter().zip(labels).collect();
        Ok(Self {
            name,
            points,
            bounds,
        })
    }

    /// Checks it against a picture of this width and height.
    ///
    /// # Errors
    /// No point and no box, numbers that are none, a box without area or outside of the picture, a point outside,
    /// or more points than anybody means.
    pub fn check(&self, size: [usize; 2]) -> Result<(), String> {
        let [width, height] = size.map(|side| side as f64);
        if self.points.is_empty() && self.bounds.is_none() {
            return Err("shows neither a point nor a box".into());
        }
        if self.points.len() > MOST_POINTS {
            let count = self.points.len();
            return Err(format!(
                "{count} points; at most {MOST_POINTS} are accepted"
            ));
        }
        let within = |at: f64, side: f64| (0.0..=side).contains(&at);
        for ([x, y], _) in &self.points {
            if !within(*x, width) || !within(*y, height) {
                return Err(format!(
                    "the point {x},{y} lies outside of the picture of {width}x{height} pixels"
                ));
            }
        }
        if let Some(bounds @ [left, top, right, bottom]) = self.bounds {
            let [a, b, c, d] = bounds;
            if bounds.iter().any(|at| !at.is_finite()) || left >= right || top >= bottom {
                return Err(format!(
                    "the box {a},{b},{c},{d} has no area; expected left,top,right,bottom"
                ));
            }
            if left >= width || top >= height || right <= 0.0 || bottom <= 0.0 {
                return Err(format!(
                    "the box {a},{b},{c},{d} lies outside of the picture of {width}x{height} pixels"
                ));
            }
        }
        Ok(())
    }

    /// As a file has it.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if let Some(name) = &self.name {
            fields.insert("name".into(), json!(name));
        }
        if let Some(bounds) = &self.bounds {
            fields.insert("box".into(), json!(bounds));
        }
        if !self.points.is_empty() {
            let (places, labels): (Vec<_>, Vec<u8>) = self
                .points
                .iter()
                .map(|(at, inside)| (*at, u8::from(*inside)))
                .unzip();
            fields.insert("points".into(), json!(places));
            fields.insert("labels".into(), json!(labels));
        }
        Value::Object(fields)
    }
}

fn four(value: &Value) -> Result<[f64; 4], String> {
    numbers(value)
}

fn numbers<const N: usize>(value: &Value) -> Result<[f64; N], String> {
    let list = value
        .as_array()
        .map(|list| list.iter().map(Value::as_f64).collect::<Vec<_>>());
    let read: Option<Vec<f64>> = list.and_then(|list| list.into_iter().collect());
    let wrong = || format!("expected a list of {N} numbers, found {}", shown(value));
    read.ok_or_else(wrong)?.try_into().map_err(|_| wrong())
}

fn shown(value: &Value) -> String {
    brisk_store::shown_within(&value.to_string(), 80)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_points_are_read() {
        let text = r#"[[1, 2, 3.5, 4], {"name": "A", "points": [[5, 6], [7, 8]], "labels": [1, 0], "box": null}]"#;
        let read = MaskPrompt::read_all(text, "boxes.json").unwrap();
        assert_eq!(read[0].bounds, Some([1.0, 2.0, 3.5, 4.0]));
        assert_eq!(read[1].points, [([5.0, 6.0], true), ([7.0, 8.0], false)]);
        assert_eq!(read[1].name.as_deref(), Some("A"));
        let written = json!({"boxes": read.iter().map(MaskPrompt::to_json).collect::<Vec<_>>()});
        assert_eq!(
            MaskPrompt::read_all(&written.to_string(), "x").unwrap(),
            read
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, words) in [
            ("{}", "an object"),
            ("[]", "0 boxes"),
            ("[[1, 2, 3]]", "entry 0: expected a list of 4 numbers"),
            (r#"[[1, 2, 3, "x"]]"#, "entry 0"),
            (
                r#"[[0,0,1,1], {"bbox": [1, 2, 3, 4]}]"#,
                "entry 1: nothing reads \"bbox\"",
            ),
            (r#"[{"points": [[1, 2]], "labels": [2]}]"#, "`labels`: 2"),
            (
                r#"[{"points": [[1, 2]], "labels": []}]"#,
                "0 labels for 1 points",
            ),
            (
                r#"[{"points": [[1]]}]"#,
                "`points`: expected a list of 2 numbers",
            ),
            (r#"[{"name": 7}]"#, "`name`"),
            ("[1", "boxes.json"),
        ] {
            let message = MaskPrompt::read_all(text, "boxes.json")
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(words) && message.contains("boxes.json"),
                "{message}"
            );
        }
    }

    #[test]
    fn prompts_must_lie_in_the_picture() {
        let of_box = |bounds| MaskPrompt {
            bounds: Some(bounds),
            ..MaskPrompt::default()
        };
        let of_point = |at| MaskPrompt {
            points: vec![(at, true)],
            ..MaskPrompt::default()
        };
        let check = |prompt: MaskPrompt| prompt.check([100, 50]);
        assert!(
            check(of_box([-5.0, 2.0, 200.0, 9.0])).is_ok() && check(of_point([100.0, 0.0])).is_ok()
        );
        for prompt in [
            MaskPrompt::default(),
            of_box([5.0, 2.0, 5.0, 9.0]),
            of_box([0.0, 0.0, f64::NAN, 9.0]),
            of_box([100.0, 0.0, 120.0, 9.0]),
            of_point([3.0, 50.1]),
            of_point([f64::NAN, 1.0]),
        ] {
            assert!(check(prompt.clone()).is_err(), "{prompt:?}");
        }
    }
}
