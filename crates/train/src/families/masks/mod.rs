//! A small Segment Anything (arXiv 2304.02643) that knows text: boxes and points become masks of letters and words.
//!
//! It is trained on scenes that are composed as it goes. As the large models do, it sometimes fills the holes of
//! letters where only a box shows what is meant, and leaves them open where a point lies in one: what Char-SAM
//! (arXiv 2412.19917) mends is there to be mended.

mod enlarged;
mod objective;
mod recipe;
mod sample;
pub mod scores;
mod seen;
mod training;

pub use recipe::MasksRecipe;
pub use training::{MasksReport, train_masks};
