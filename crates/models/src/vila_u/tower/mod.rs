//! The vision tower: from pictures to codes and from sums of codewords to pictures, with the depth
//! transformer that shares its file.

mod config;
mod contrast;
mod cost;
mod encoder;
mod model;
mod quantizer;
mod siglip;

pub use config::{DecoderConfig, TowerConfig};
pub use contrast::Contrast;
pub use encoder::Encoder;
pub use model::{Parts, Tower};
pub use quantizer::{AtDepth, Encoded, Quantizer};
pub use siglip::{SiglipConfig, SiglipTextConfig};
