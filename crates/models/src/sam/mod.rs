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
//! a hundredth of it.

mod component;
mod config;
mod cost;
mod image_encoder;
mod mask_decoder;
mod names;
mod prompt_encoder;
mod two_way;
mod vision_attention;

pub use component::COMPONENT;
pub use config::{MaskDecoderConfig, PromptEncoderConfig, SamConfig, VisionConfig};
pub use image_encoder::ImageEncoder;
pub use mask_decoder::{Decoded, MaskDecoder, PreparedPicture};
pub use names::plain_names;
pub use prompt_encoder::{PointLabel, Points, PromptEncoder, Prompts};
