//! Qwen2 (arXiv 2407.10671) as a text encoder: the body of the language model, causal, without a head.
//!
//! ```text
//! ids [T] ── embedding ── layers ── norm ──▶ hidden states [T,D], one for every token
//! ```
//!
//! The graph is that of [`language_model`](crate::language_model). Padding has positions and rows like any
//! token, and is seen by none: what comes out of its rows depends on the tokens before it.

mod component;
mod model;

pub use component::{COMPONENT, Qwen2Config};
pub use model::{Prefix, Qwen2Encoder};
