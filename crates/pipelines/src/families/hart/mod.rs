//! HART: from a request to pictures, scale by scale.
//!
//! ```text
//! prompts ──text encoder──▶ rows of text ──transformer, with and without them──▶ codes of 1×1, 2×2, … places
//!                                                    │ last scale: diffusion head ──▶ what no code holds
//! codes of a file, for the first scales ─────────────┴──▶ sum ──decoder──▶ picture
//! ```
//!
//! Every picture is drawn by random numbers of its own seed, whichever others are drawn beside it.

mod codes;
mod cost;
mod draws;
mod load;
mod memory;
mod model;
pub mod options;
mod pipeline;
mod plan;
pub mod prompt;
mod reproduce;
mod text;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, Published};
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "hart",
    about: "HART",
    recognise: |folder: &ModelFolder, _given: &Options| load::Place::find(folder).is_some(),
    supports: &[(ResultKind::Pictures, &options::HART)],
    published: &[Published {
        id: "mit-han-lab/hart-0.7b-1024px",
        model: "HART 0.7B",
        pixels: 1024,
        note: "needs `text-encoder` mit-han-lab/Qwen2-VL-1.5B-Instruct",
        discouraged: false,
    }],
    image: Some(model::open),
    text: None,
    masks: None,
    video: None,
    judge: None,
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[&reproduce::HART],
};
