//! Segment Anything (arXiv 2304.02643): masks of whatever points, boxes or rough masks show.
//!
//! ```text
//! picture [B,S,S,3] ── image encoder ──▶ embedding [B,h,w,C], once a picture
//!                                            │
//! points, boxes ── prompt encoder ──▶ tokens │
//! mask          ──        │        ──▶ added ▼
//!                         └──▶ two-way transformer ──▶ masks [P,M,4h,4w], their quality [P,M]
//! ```
//!
//! The image encoder is a ViT whose attention stays within windows except in a few layers; a prompt costs
//! a hundredth of it. MobileSAM and EfficientViT-SAM put smaller networks in its place and keep the rest.

mod component;
mod config;
mod cost;
mod efficient_vit;
mod feed_forward;
mod folding;
mod image_encoder;
mod mask_decoder;
mod mb_conv;
mod names;
mod neck;
mod of_tensors;
mod prompt_encoder;
mod shapes;
mod shared_cells;
mod tiny_vit;
mod two_way;
mod vit;

pub use component::COMPONENT;
pub use config::{MaskDecoderConfig, PromptEncoderConfig, SamConfig};
pub use efficient_vit::{EfficientVitBlock, EfficientVitConfig};
pub use image_encoder::{ImageEncoder, ImageEncoderConfig};
pub use mask_decoder::{Decoded, MaskDecoder, PreparedPicture};
pub use names::plain_names;
pub use prompt_encoder::{PointLabel, Points, PromptEncoder, Prompts};
pub use tiny_vit::TinyVitConfig;
pub use vit::VisionConfig;
