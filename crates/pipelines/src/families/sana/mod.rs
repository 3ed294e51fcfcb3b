//! SANA, SANA-1.5 and SANA-Sprint: from a request to pictures.
//!
//! ```text
//! prompts ──text encoder──▶ caption rows ──transformer──▶ keys and values, once per prompt
//! init / control picture ──encoder──▶ latent
//! noise [B, C, h, w] ──(steps × guidance branches) transformer──▶ latent ──decoder──▶ picture
//! ```
//!
//! Components are loaded when their stage begins and, unless memory is plentiful, dropped when it ends:
//! the text encoder is larger than most of the transformers.
//!
//! Noise is drawn for all pictures of a request at once in the shape `[B, C, h, w]`, as diffusers draws it
//! from a CPU generator; SANA-Sprint draws again at every step.

mod check;
mod cost;
mod index;
mod load;
mod memory;
mod model;
pub mod options;
mod pipeline;
pub mod plan;
pub mod prompt;
mod published;
mod quantize;
mod reproduce;
mod scheduler;
mod text;
mod transformer_files;
mod velocity;
mod warnings;

pub use load::LoadOptions;
pub use pipeline::SanaPipeline;
pub use plan::ModelKind;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, json_text};
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "sana",
    about: "SANA, SANA-1.5 and SANA-Sprint",
    recognise,
    supports: &[
        (ResultKind::Pictures, &options::SANA),
        (ResultKind::Pictures, &options::SPRINT),
    ],
    published: published::PUBLISHED,
    image: Some(model::open),
    text: None,
    masks: None,
    video: None,
    judge: None,
    class_in_words,
    low_bit_layout: Some(quantize::low_bit_layout),
    reproductions: &[&reproduce::SANA, &reproduce::SVDQUANT],
};

fn class_in_words(class: &str) -> Option<&'static str> {
    let found = index::CLASSES.iter().find(|(name, ..)| *name == class);
    found.map(|(_, _, words)| *words)
}

/// A pipeline folder of one of the classes, or a transformer file that brings no folder along.
fn recognise(folder: &ModelFolder, given: &Options) -> bool {
    match json_text(folder, index::INDEX, "_class_name") {
        Some(class) => index::CLASSES.iter().any(|(name, ..)| *name == class),
        None => given.has(options::TRANSFORMER.definition()),
    }
}
