//! Distillation of a model of clips into one of a few steps, and of its guidance with it, as Magic 1-For-1 does it:
//! distribution matching (DMD2) with a critic that is the teacher with low-rank pairs.

mod draws;
mod networks;
mod objective;
mod recipe;
mod training;

pub use recipe::{CriticOptions, DmdRecipe};
pub use training::{DmdReport, distill_video};

#[cfg(test)]
mod tests;
