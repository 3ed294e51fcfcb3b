//! VILA-U: pictures and clips from a text, texts about pictures and clips, and texts alone.
//!
//! ```text
//! prompt, places for pictures ──tokenizer──▶ ids ┐
//! pictures ──vision tower──▶ sums of codewords ──projector──▶ rows ┴─▶ language model ──head──▶ text
//! prompt, and none ──tokenizer──▶ ids ──▶ language model ──depth transformer──▶ codes of a place ──┐
//!                                            ▲ ◀──projector── their sum ◀────────────────────────┤
//!                                                                             decoder ──▶ picture
//! ```
//!
//! Every picture is drawn by random numbers of its own seed, whichever others are drawn beside it.

mod drawer;
mod draws;
pub mod exam;
mod files;
mod film;
pub mod options;
mod picture;
mod plan;
pub mod prompt;
mod reproduce;
mod writer;
mod writing;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, Published};
use crate::request::ResultKind;

pub use files::tower_config;
pub(super) use picture::squeezed;

/// The family.
pub static FAMILY: Family = Family {
    name: "vila-u",
    about: "VILA-U",
    recognise: |folder: &ModelFolder, _given: &Options| files::root(folder).is_some(),
    supports: &[
        (ResultKind::Pictures, &options::DRAWS),
        (ResultKind::Text, &options::WRITES),
        (ResultKind::Clips, &options::FILMS),
    ],
    published: &[Published {
        id: "mit-han-lab/vila-u-7b-256",
        model: "VILA-U 7B",
        pixels: 256,
        note: "reads pictures too: `brisk text --picture`",
        discouraged: false,
    }],
    image: Some(drawer::open),
    text: Some(writer::open),
    masks: None,
    video: Some(film::open),
    judge: None,
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[&reproduce::VILA_U],
};
