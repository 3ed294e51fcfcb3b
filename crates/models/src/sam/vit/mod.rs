//! The ViT of Segment Anything: attention within windows, and over the whole frame in a few layers.

mod attention;
mod config;
mod cost;
mod model;

pub use config::VisionConfig;
pub(super) use model::Vit;
