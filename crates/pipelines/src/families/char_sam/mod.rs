//! Char-SAM (arXiv 2412.19917): masks of the characters of words in scenes, by prompts for Segment Anything that a
//! detector of characters, a recogniser and the shapes of letters give; nothing is trained for it. Points, boxes and
//! everything else are put to Segment Anything alone.
//!
//! The authors published no program, and what could be read of the paper gives the structure, not the numbers: this
//! implements the method, with thresholds of its own.
//!
//! ```text
//! word (its outline, its text) ──strip (outline.rs)──▶ detector ──▶ boxes ──text, recogniser, segmenter──▶
//! one box a character (boxes.rs, characters.rs) ──segmenter, of the picture or a part of the strip (view.rs)──▶
//! first mask ──letters of typefaces that look like it (glyphs.rs)──▶ points on strokes and in holes (points.rs)
//! ──segmenter──▶ mask, kept where it looks like the letter (refine.rs) ──▶ pixels of the picture (word.rs)
//! ```

pub mod boxes;
mod characters;
mod detector;
mod files;
pub mod glyphs;
mod model;
mod outline;
pub mod points;
mod reader;
mod refine;
mod reproduce;
mod settings;
mod view;
mod word;

use std::sync::Arc;

use crate::families::sam::{self, Segmenter};
use crate::options::Support;
use crate::registry::Family;
use crate::request::ResultKind;

pub use detector::{Detector, RegionMap, TextBox, detector_pixels, text_boxes};
pub use glyphs::Templates;
pub use outline::{HEIGHT as STRIP_ROWS, Strip};
pub use reader::{Reader, reader_pixels};
pub use settings::{Parts, Points, Prompt, Settings};

/// The family.
pub static FAMILY: Family = Family {
    name: "char-sam",
    about: "Segment Anything, and Char-SAM for the characters of words",
    recognise: sam::recognise,
    supports: &[(ResultKind::Masks, &SUPPORT)],
    published: sam::PUBLISHED,
    image: None,
    text: None,
    masks: Some(model::open),
    video: None,
    judge: None,
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[&reproduce::CHAR_SAM],
};

static SUPPORT: Support = Support {
    models: "Segment Anything",
    groups: &[sam::options::HONOURED, settings::HONOURED],
    refused: &[],
};

/// What a word is found with.
pub(crate) struct Tools {
    segmenter: Segmenter,
    detector: Option<Arc<Detector>>,
    reader: Option<Arc<Reader>>,
    templates: Templates,
}
