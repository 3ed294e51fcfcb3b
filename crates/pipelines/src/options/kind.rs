//! What the value of an option is, how it is read from text, and which values are allowed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use brisk_media::{Picture, read_clip};
use brisk_store::read::without_last_line_end;
use brisk_store::{Limit, read_text};

use super::Codes;
use super::seed;
use super::value::{ClipLatents, Latents, Value};
use crate::error::{Error, Result};

/// Numbers that are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub least: f64,
    /// Whether the least itself is allowed.
    pub closed: bool,
    /// The most, which is allowed; infinite for none.
    pub most: f64,
}

impl Range {
    /// From `least` to `most`, both allowed.
    pub const fn of(least: f64, most: f64) -> Self {
        Self {
            least,
            closed: true,
            most,
        }
    }

    /// Above `least`, up to `most`.
    pub const fn above(least: f64, most: f64) -> Self {
        Self {
            least,
            closed: false,
            most,
        }
    }

    /// Any finite number.
    pub const ANY: Self = Self::of(f64::NEG_INFINITY, f64::INFINITY);

    /// Whether a number is allowed; NaN and infinities never are.
    pub fn contains(self, number: f64) -> bool {
        number.is_finite()
            && number <= self.most
            && (number > self.least || self.closed && number == self.least)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.closed { '[' } else { '(' };
        match (self.least.is_finite(), self.most.is_finite()) {
            (false, false) => formatter.write_str("the finite numbers"),
            (true, false) => write!(formatter, "{open}{}, ∞)", self.least),
            _ if self.closed => write!(formatter, "{}..={}", self.least, self.most),
            _ => write!(formatter, "{open}{}, {}]", self.least, self.most),
        }
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// On where given.
    Flag,
    /// A whole number from the first to the second, both allowed.
    Whole(u64, u64),
    /// A number.
    Number(Range),
    /// Numbers, separated by commas.
    Numbers(Range),
    /// Whole numbers, separated by commas.
    Wholes,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number below 2^64; `random` or -1 draws one below 2^53.
    Seed,
    /// A picture file.
    Picture,
    /// Picture files, each by its own mention of the option.
    Pictures,
    /// A file of a clip, or a folder of its frames.
    Clip,
    /// A safetensors file with one tensor of this name and four dimensions.
    Latents(&'static str),
    /// A safetensors file with one tensor of this name and five dimensions.
    ClipLatents(&'static str),
    /// A safetensors file of whole numbers.
    Codes,
    /// A text file, or the word `none` for an empty text; a line end behind it is no part of the text.
    TextFile,
    /// The same, taken byte for byte.
    WholeTextFile,
    /// A file or folder.
    Path,
    /// Files, each by its own mention of the option.
    Paths,
    /// A model: a folder, a hub id, or the name of one in the box.
    Model,
}

impl Kind {
    /// Reads a value. Models are kept by name; whoever opens them knows where to look.
    pub(super) fn read(self, option: &'static str, text: &str) -> Result<Value> {
        let wrong = |expected: &str| Error::request(option, format!("{text:?} is not {expected}"));
        let number = |text: &str, expected| -> Result<f64> {
            text.trim().parse().map_err(|_| wrong(expected))
        };
        let whole = |text: &str, expected| -> Result<u64> {
            text.trim().parse().map_err(|_| wrong(expected))
        };
        Ok(match self {
            Self::Flag => match text {
                "" | "true" => Value::Flag(true),
                "false" => Value::Flag(false),
                _ => return Err(wrong("true or false")),
            },
            Self::Whole(..) => Value::Whole(whole(text, "a whole number")?),
            Self::Number(_) => Value::Number(number(text, "a number")?),
            Self::Numbers(_) => Value::Numbers(
                text.split(',')
                    .map(|part| number(part, "a list of numbers separated by commas"))
                    .collect::<Result<_>>()?,
            ),
            Self::Wholes => Value::Wholes(
                text.split(',')
                    .map(|part| whole(part, "a list of whole numbers separated by commas"))
                    .collect::<Result<_>>()?,
            ),
            Self::Text => Value::Text(text.to_owned()),
            Self::Choice(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Value::Text((*word).to_owned()),
                None => return Err(unknown_word(option, text, words)),
            },
            Self::Seed => Value::Whole(match text.trim() {
                "random" | "-1" => seed::drawn(),
                other => other
                    .parse()
                    .map_err(|_| wrong("a whole number below 2^64, or random"))?,
            }),
            Self::Picture => Value::Picture(read_picture(option, text)?),
            Self::Pictures => Value::Pictures(vec![read_picture(option, text)?]),
            Self::Clip => Value::Clip(Arc::new(
                read_clip(Path::new(text)).map_err(|error| Error::from(error).of(option))?,
            )),
            Self::Latents(tensor) => Value::Latents(Arc::new(
                Latents::open(Path::new(text), tensor).map_err(|error| error.of(option))?,
            )),
            Self::ClipLatents(tensor) => Value::ClipLatents(Arc::new(
                ClipLatents::open(Path::new(text), tensor).map_err(|error| error.of(option))?,
            )),
            Self::Codes => Value::Codes(Arc::new(
                Codes::open(Path::new(text)).map_err(|error| error.of(option))?,
            )),
            Self::TextFile | Self::WholeTextFile => match text {
                "none" => Value::Text(String::new()),
                file => {
                    let text = read_text(Path::new(file), Limit::TEXT)
                        .map_err(|error| Error::from(error).of(option))?;
                    // Editors end a file with a line end, which would become part of every prompt.
                    Value::Text(match self {
                        Self::WholeTextFile => text,
                        _ => without_last_line_end(&text).to_owned(),
                    })
                }
            },
            Self::Path => Value::Path(text.into()),
            Self::Paths => Value::Paths(vec![text.into()]),
            Self::Model => Value::Text(text.to_owned()),
        })
    }

    /// Refuses a value that is none of this kind.
    pub(super) fn check_sort(self, option: &'static str, value: &Value) -> Result<()> {
        let fits = match self {
            Self::Flag => matches!(value, Value::Flag(_)),
            Self::Whole(..) | Self::Seed => matches!(value, Value::Whole(_)),
            Self::Number(_) => matches!(value, Value::Number(_)),
            Self::Numbers(_) => matches!(value, Value::Numbers(_)),
            Self::Wholes => matches!(value, Value::Wholes(_)),
            Self::Text | Self::Choice(_) | Self::TextFile | Self::WholeTextFile | Self::Model => {
                matches!(value, Value::Text(_))
            }
            Self::Picture => matches!(value, Value::Picture(_)),
            Self::Pictures => matches!(value, Value::Pictures(_)),
            Self::Clip => matches!(value, Value::Clip(_)),
            Self::Latents(_) => matches!(value, Value::Latents(_)),
            Self::ClipLatents(_) => matches!(value, Value::ClipLatents(_)),
            Self::Codes => matches!(value, Value::Codes(_)),
            Self::Path => matches!(value, Value::Path(_)),
            Self::Paths => matches!(value, Value::Paths(_)),
        };
        match fits {
            true => Ok(()),
            false => Err(Error::request(option, "a value of another kind")),
        }
    }

    /// Refuses a value out of range.
    pub(crate) fn check(self, option: &'static str, value: &Value) -> Result<()> {
        let outside = |found: String, range: String| {
            Err(Error::request(
                option,
                format!("{found} is outside {range}"),
            ))
        };
        match (self, value) {
            (Self::Whole(least, most), Value::Whole(found)) if !(least..=most).contains(found) => {
                outside(found.to_string(), format!("{least}..={most}"))
            }
            (Self::Number(range), Value::Number(found)) if !range.contains(*found) => {
                outside(found.to_string(), range.to_string())
            }
            (Self::Numbers(range), Value::Numbers(found)) => {
                match found.iter().find(|number| !range.contains(**number)) {
                    Some(number) => outside(number.to_string(), range.to_string()),
                    None => Ok(()),
                }
            }
            (Self::Choice(words), Value::Text(found)) if !words.contains(&found.as_str()) => {
                Err(unknown_word(option, found, words))
            }
            _ => Ok(()),
        }
    }
}

fn read_picture(option: &'static str, file: &str) -> Result<Arc<Picture>> {
    let picture = brisk_media::read_picture(Path::new(file));
    let picture = picture.map_err(|error| Error::from(error).of(option))?;
    Ok(Arc::new(picture))
}

fn unknown_word(option: &'static str, found: &str, words: &[&str]) -> Error {
    Error::request(
        option,
        format!("{found:?} is unknown; expected {}", listed(words)),
    )
}

/// `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_their_ends() {
        assert_eq!(Range::of(0.0, 100.0).to_string(), "0..=100");
        assert_eq!(Range::above(0.0, 1.0).to_string(), "(0, 1]");
        assert_eq!(Range::of(0.0, f64::INFINITY).to_string(), "[0, ∞)");
        assert!(Range::of(0.0, 1.0).contains(0.0));
        assert!(!Range::above(0.0, 1.0).contains(0.0));
        assert!(!Range::ANY.contains(f64::NAN) && !Range::ANY.contains(f64::INFINITY));
    }

    #[test]
    fn seeds_are_numbers_or_drawn() {
        let read = |text| Kind::Seed.read("seed", text);
        assert_eq!(read("7").unwrap().to_json(), Some(7.into()));
        assert!(read("18446744073709551615").is_ok());
        assert!(read("-2").is_err() && read("1.5").is_err());
        let drawn = [read("random"), read("-1")].map(|value| value.unwrap().to_json());
        assert_ne!(drawn[0], drawn[1]);
    }

    #[test]
    fn lists_and_words() {
        assert!(Kind::Wholes.read("pag-layers", "1,2,x").is_err());
        let error = Kind::Choice(&["auto", "whole"])
            .read("decode", "half")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "decode: \"half\" is unknown; expected auto or whole"
        );
    }
}
