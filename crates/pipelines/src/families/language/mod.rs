//! Diffusion language models: from a prompt to text.
//!
//! ```text
//! Decoding::plan          checked against the model; decoder, rule, blocks and steps settled
//! one Decoder a sequence     says which pass it needs next, takes its logits, decides tokens
//!   blocks.rs                LLaDA and Fast-dLLM: none, prefix or dual cache
//!   dream.rs                 Dream's own algorithms, and its block variant
//!   block_causal.rs          SDAR, LLaDA2, BD3-LM, Fast-dLLM v2: exact caches
//! Session                    packs the passes of all sequences into one forward pass; open_session.rs
//!                            lets them come and go
//! ```
//!
//! Sequences of a batch share forward passes and nothing else: each decodes as it would alone.

mod algorithm;
mod block_causal;
mod blocks;
mod cost;
mod decide;
mod decoding;
mod dream;
mod load;
mod model;
mod open_session;
pub mod options;
mod pipeline;
mod proposal;
mod random;
mod reproduce;
mod row;
mod selection;
mod session;
mod weights;

pub use algorithm::{Algorithm, CacheMode, EndTokens};
pub use decoding::{Decoding, DecodingPlan};
pub use load::{LanguageFiles, LoadOptions};
pub use pipeline::TextPipeline;
pub use selection::{Selection, quota};
pub use session::Generation;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, json_text};
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "language",
    about: "diffusion language models (LLaDA, Dream, SDAR, Fast-dLLM v2 and their kin)",
    recognise,
    supports: &[(ResultKind::Text, &options::SUPPORT)],
    published: &[],
    image: None,
    text: Some(model::open),
    masks: None,
    video: None,
    judge: None,
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[&reproduce::FAST_DLLM],
};

/// A folder with a configuration that is no component's of a pipeline; opening it says what is wrong with
/// a configuration that no language model has.
fn recognise(folder: &ModelFolder, _: &Options) -> bool {
    folder.exists(LanguageFiles::CONFIG)
        && !folder.exists("model_index.json")
        && json_text(folder, LanguageFiles::CONFIG, "_class_name").is_none()
}
