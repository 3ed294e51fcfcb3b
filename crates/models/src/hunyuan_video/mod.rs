//! HunyuanVideo (arXiv 2412.03603): the transformer that makes clips from noise, a text and a first frame, and the
//! causal autoencoder that turns clips into latents. Magic 1-For-1 (arXiv 2502.07701) is the same network with the
//! first frame beside the noise, taught to draw in four steps.

pub mod autoencoder;
mod clip;
pub mod transformer;

pub use clip::{to_channels_first, to_channels_last};
