//! A small CRAFT (arXiv 1904.01941), which finds characters and what lies between them, trained on scenes of text that
//! are composed as it goes: where every letter lies is known, so nothing has to be guessed from words as the authors do
//! for photographs.

mod objective;
mod recipe;
mod sample;
mod scores;
mod training;

pub use recipe::DetectorRecipe;
pub use scores::DetectorScores;
pub use training::{DetectorReport, train_detector};
