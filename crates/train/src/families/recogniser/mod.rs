//! A small CRNN (arXiv 1507.05717), which reads words and single letters, trained on words in scenes that are composed as
//! it goes, laid straight as Char-SAM lays them before they are read.

mod alignment;
mod objective;
mod recipe;
mod sample;
mod training;

pub use recipe::RecogniserRecipe;
pub use training::{RecogniserReport, train_recogniser};
