//! Distillation of a text-to-image model into one of a few steps: SANA-Sprint's consistency and adversarial losses.

mod draws;
mod export;
mod flow;
mod networks;
mod objective;
mod probe;
mod recipe;
mod sample;
mod steered;
mod texts;
mod training;

pub use networks::{SprintControl, SprintTeacher};
pub use probe::ScmProbe;
pub use recipe::SprintRecipe;
pub use training::{SprintReport, distill_sprint};

#[cfg(test)]
mod tests;
