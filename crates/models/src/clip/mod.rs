//! CLIP (arXiv 2103.00020): both encoders, which compare pictures with texts, its text encoder alone, and its vision
//! encoder for models that read pictures by it.

mod component;
mod config;
mod model;
mod text;
mod vision;

pub use component::{COMPONENT, MODEL};
pub use config::{ClipTextConfig, ClipVisionConfig};
pub use model::{ClipModel, ClipModelConfig, Similarity};
pub use text::{ClipText, EncodedText};
pub use vision::ClipVision;
