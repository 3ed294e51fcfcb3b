//! MobileSAM's image encoder (arXiv 2306.14289): TinyViT (arXiv 2207.10666), whose last stage keeps the size of the one
//! before, and the ViT's neck.

mod attention;
mod config;
mod cost;
mod model;

pub(super) use config::PATCH;
pub use config::TinyVitConfig;
pub(super) use model::TinyVit;
