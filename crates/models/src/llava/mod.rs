//! LLaVA (arXiv 2304.08485) as a text encoder: a Llama body that reads pictures by CLIP's vision encoder, or the body
//! alone.
//!
//! ```text
//! ids [T] ── embedding ──▶ [T,D] ── layers ──▶ states [T,D]
//! picture ── vision encoder ── projector ──▶ a row of [T,D] for every image token
//! ```

mod component;
mod config;
mod model;

pub use component::COMPONENT;
pub use config::{LlavaConfig, LlavaVision};
pub use model::Llava;
