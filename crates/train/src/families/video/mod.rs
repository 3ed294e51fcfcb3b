//! Training of HunyuanVideo's transformer, the network of Magic 1-For-1, with its text encoders, by flow matching on the
//! latents of a frozen autoencoder: of clips from text alone, or that begin with a frame.

mod configs;
pub(crate) mod encodings;
pub(crate) mod export;
pub(crate) mod flow;
pub(crate) mod networks;
pub(crate) mod pool;
pub(crate) mod recipe;
pub(crate) mod sample;
mod start;
pub(crate) mod texts;
pub(crate) mod training;

pub use recipe::{FirstFrameNoise, FlowTarget, NewChannels, VideoRecipe};
pub use start::VideoStart;
pub use training::{VideoReport, train_video};
