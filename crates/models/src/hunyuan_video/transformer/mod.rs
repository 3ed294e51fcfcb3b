//! The transformer.
//!
//! ```text
//! latent [F,h,w,C]   patches, 3-axis rotary positions      text [T,D]   token refiner, by time and the text's mean
//!       \                                                   /
//!        double blocks: each stream its own layers, one attention over both
//!        single blocks: both streams as one sequence, attention and MLP side by side
//!        image tokens: norm by time, projection, patches back
//! ```
//!
//! Each clip of a batch runs by itself with the valid tokens of its text, so that no padding is computed: nothing of
//! it reaches the other tokens in the reference either.

mod block;
mod component;
mod config;
mod cost;
mod embed;
mod low_bit;
mod model;
mod modulation;
mod names;
mod refiner;
mod runs;
mod sampler;

pub use component::COMPONENT;
pub use config::{ImageCondition, VideoTransformerConfig};
pub use low_bit::{VideoLayout, parameters};
pub use model::{VideoConditioning, VideoTransformer};
pub use names::plain_names;
pub use sampler::{VideoSampler, beside, video_sigmas};
