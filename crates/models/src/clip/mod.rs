//! CLIP (arXiv 2103.00020): its text encoder, and its vision encoder for models that read pictures by it.

mod component;
mod config;
mod text;
mod vision;

pub use component::COMPONENT;
pub use config::{ClipTextConfig, ClipVisionConfig};
pub use text::{ClipText, EncodedText};
pub use vision::ClipVision;
