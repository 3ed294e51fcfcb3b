//! The causal autoencoder.
//!
//! ```text
//! clip [F,H,W,3], F = 4·f − 3                       latent [f,H/8,W/8,C]
//!   conv_in                                           post_quant_conv, conv_in
//!   levels: residual blocks, halving                  middle: block, attention, block
//!   middle: block, attention, block                   levels: residual blocks, doubling
//!   norm, SiLU, conv_out, quant_conv: mean, spread    norm, SiLU, conv_out
//! ```
//!
//! No frame sees a later one, but through the norms, whose statistics span the whole clip. The first frame stays one
//! in time, all others fall together and come apart again.

mod blocks;
mod component;
mod config;
mod cost;
mod model;
mod names;
mod pieces;
mod tiling;

pub use component::COMPONENT;
pub use config::VideoAutoencoderConfig;
pub use model::{VideoAutoencoder, VideoHalves};
pub use names::plain_names;
pub use tiling::ClipTiling;
