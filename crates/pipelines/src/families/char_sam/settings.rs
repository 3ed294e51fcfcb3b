//! How characters are found, by options of their own.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::detector::TextBox;
use crate::options::word_keys as keys;
use crate::options::{Honoured, Options};

/// What shows the segmenter what to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A word's box.
    Word,
    /// Boxes of characters that come with the words.
    GivenBoxes,
    /// Boxes of characters that are found.
    Boxes,
    /// The same, and points by the shapes of letters.
    BoxesAndPoints,
}

/// Which points are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// None: a letter's shape has no say.
    None,
    /// Those on strokes.
    Positive,
    /// Those in holes and bays.
    Negative,
    /// All.
    Both,
}

/// When parts of a word are looked at in place of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Where characters are small in the frame, or turned.
    Auto,
    /// For every word.
    Always,
    /// Where characters are turned.
    Never,
}

/// Every setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What shows what to find.
    pub prompt: Prompt,
    /// Which points.
    pub points: Points,
    /// Whether the first mask is shown again with the points.
    pub mask_input: bool,
    /// When parts of a word are looked at.
    pub parts: Parts,
    /// Fonts besides those that come along.
    pub fonts: Option<PathBuf>,
    /// How words are found where none are given.
    pub text_box: TextBox,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prompt: Prompt::BoxesAndPoints,
            points: Points::Both,
            mask_input: false,
            parts: Parts::Auto,
            fonts: None,
            text_box: TextBox::default(),
        }
    }
}

impl Settings {
    /// As options say.
    pub fn of(given: &Options) -> Self {
        let usual = TextBox::default();
        Self {
            prompt: match given.get(&keys::PROMPT).as_deref() {
                Some("word") => Prompt::Word,
                Some("char-gt") => Prompt::GivenBoxes,
                Some("cbr") => Prompt::Boxes,
                _ => Prompt::BoxesAndPoints,
            },
            points: match given.get(&keys::POINTS).as_deref() {
                Some("none") => Points::None,
                Some("pos") => Points::Positive,
                Some("neg") => Points::Negative,
                _ => Points::Both,
            },
            mask_input: given.get(&keys::MASK_INPUT).as_deref() == Some("on"),
            parts: match given.get(&keys::CROP_WORDS).as_deref() {
                Some("always") => Parts::Always,
                Some("never") => Parts::Never,
                _ => Parts::Auto,
            },
            fonts: given.get(&keys::FONTS),
            text_box: TextBox {
                text_threshold: given
                    .get(&keys::TEXT_THRESHOLD)
                    .unwrap_or(usual.text_threshold),
                low_text: given.get(&keys::LOW_TEXT).unwrap_or(usual.low_text),
                link_threshold: given
                    .get(&keys::LINK_THRESHOLD)
                    .unwrap_or(usual.link_threshold),
            },
        }
    }

    /// Effective values, for descriptions.
    pub fn to_json(&self, found: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        let prompt = match self.prompt {
            Prompt::Word => "word",
            Prompt::GivenBoxes => "char-gt",
            Prompt::Boxes => "cbr",
            Prompt::BoxesAndPoints => "cbr+cgr",
        };
        let points = match self.points {
            Points::None => "none",
            Points::Positive => "pos",
            Points::Negative => "neg",
            Points::Both => "both",
        };
        let parts = match self.parts {
            Parts::Auto => "auto",
            Parts::Always => "always",
            Parts::Never => "never",
        };
        fields.insert("prompt".into(), json!(prompt));
        fields.insert("crop_words".into(), json!(parts));
        if self.prompt == Prompt::BoxesAndPoints {
            fields.insert("points".into(), json!(points));
            fields.insert(
                "mask_input".into(),
                json!(if self.mask_input { "on" } else { "off" }),
            );
        }
        if let Some(fonts) = &self.fonts {
            fields.insert("fonts".into(), json!(fonts.display().to_string()));
        }
        if found {
            fields.insert("text_threshold".into(), json!(self.text_box.text_threshold));
            fields.insert("low_text".into(), json!(self.text_box.low_text));
            fields.insert("link_threshold".into(), json!(self.text_box.link_threshold));
        }
        fields
    }
}

const fn honoured(option: &'static crate::options::Definition, default: &'static str) -> Honoured {
    Honoured { option, default }
}

/// The options.
pub(super) const HONOURED: &[Honoured] = &[
    honoured(keys::WORDS.definition(), ""),
    honoured(keys::PROMPT.definition(), "cbr+cgr"),
    honoured(keys::POINTS.definition(), "both"),
    honoured(keys::MASK_INPUT.definition(), "off"),
    honoured(keys::CROP_WORDS.definition(), "auto"),
    honoured(keys::FONTS.definition(), ""),
    honoured(keys::DETECTOR.definition(), ""),
    honoured(keys::LINK_REFINER.definition(), ""),
    honoured(keys::RECOGNISER.definition(), ""),
    honoured(keys::TEXT_THRESHOLD.definition(), "0.7"),
    honoured(keys::LOW_TEXT.definition(), "0.4"),
    honoured(keys::LINK_THRESHOLD.definition(), "0.4"),
];
