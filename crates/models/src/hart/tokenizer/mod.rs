//! The hybrid tokenizer: a VQGAN whose latent is a sum of codewords of several scales, and a rest.

mod component;
mod config;
mod cost;
mod model;
mod names;
mod quantizer;

pub use component::COMPONENT;
pub(super) use component::builder;
pub use config::TokenizerConfig;
pub use model::{Parts, Tokenizer};
pub use names::plain_names;
pub use quantizer::{Encoded, Quantizer, ScaleEncoded};
