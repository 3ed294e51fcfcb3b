//! A family as small as one can be: prompts that name a word, a network that knows a picture of each, and
//! Euler's steps from noise to it. It shows what a family has to bring along.

mod model;
pub mod options;
mod plan;
mod reproduce;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, json_text};
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "toy",
    about: "toys",
    recognise,
    supports: &[(ResultKind::Pictures, &options::TOY)],
    published: &[],
    image: Some(model::open),
    text: None,
    masks: None,
    video: None,
    judge: None,
    class_in_words: |class| (class == CLASS).then_some("toy pipeline"),
    low_bit_layout: None,
    reproductions: &[&reproduce::STRAIGHT],
};

/// What its `model_index.json` calls it.
const CLASS: &str = "ToyPipeline";

fn recognise(folder: &ModelFolder, _given: &Options) -> bool {
    json_text(folder, "model_index.json", "_class_name").is_some_and(|class| class == CLASS)
}
