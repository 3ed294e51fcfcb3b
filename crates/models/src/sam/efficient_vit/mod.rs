//! EfficientViT-SAM's image encoder (arXiv 2402.05008): an EfficientViT of the large kind, and a neck that sums its last
//! three stages at the size of the embedding.

mod blocks;
mod config;
mod cost;
mod model;

pub use config::{EfficientVitBlock, EfficientVitConfig};
pub(super) use model::EfficientVit;
