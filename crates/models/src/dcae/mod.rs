//! DC-AE, the deep-compression autoencoder (arXiv 2410.10733), in every published variant.
//!
//! ```text
//! picture [B,H,W,3] in -1..1
//!   conv_in                                  a convolution; halves too where stage 0 is empty
//!   stages 0..S-1: blocks, then downsample   stage s at H/2^s; residual or EfficientViT blocks
//!   conv_out + group mean of its input       latent [B,H/r,W/r,C], r = 2^(S-1)
//! latent
//!   conv_in + repeated latent
//!   stages S-1..0: upsample, then blocks
//!   norm, activation, conv_out               picture, not clamped
//! ```
//!
//! Every resampler is a convolution plus a shortcut without parameters (space to depth and a mean
//! over channel groups; its opposite upwards), which is what lets the compression be deep. The
//! model is deterministic: there is no posterior and nothing to sample.
//!
//! [`Autoencoder::encode`] and [`Autoencoder::decode`] are differentiable.
//! [`Autoencoder::decode_strips`] gives the same numbers in less memory;
//! [`Autoencoder::decode_tiled`] those of diffusers' tiling. [`native`] reads the authors' files.

mod blocks;
mod component;
mod config;
mod cost;
mod efficient_vit;
mod keys;
mod lite_mla;
mod model;
pub mod native;
mod pass;
mod res_block;
mod resample;
mod strips;
mod tiling;

pub use component::{COMPONENT, open};
pub use config::{
    Activation, AutoencoderConfig, BlockKind, Downsample, NormKind, StageConfig, Upsample,
};
pub use cost::PerHalf;
pub use model::{Autoencoder, Halves};
pub use strips::LARGEST_MAP;
pub use tiling::Tiling;
