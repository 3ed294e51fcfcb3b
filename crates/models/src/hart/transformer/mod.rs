//! The scale-wise autoregressive transformer with its diffusion head.

mod block;
mod config;
mod cost;
mod embeddings;
mod head;
mod model;
mod positions;
mod taught;

pub use crate::diffusion_schedule::{DiffusionSchedule, Step};
pub use config::TransformerConfig;
pub use head::DiffusionHead;
pub use model::{Codewords, Progress, Transformer};
pub use taught::{Lesson, Taught};
