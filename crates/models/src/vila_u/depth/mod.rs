//! The depth transformer: from a hidden state of the language model to the codes of a place, one after
//! another (the RQ-Transformer's second half, arXiv 2203.01941).

mod config;
mod model;

pub use config::DepthConfig;
pub use model::{Cache, DepthTransformer};
