//! Gemma 2: the decoder body that SANA uses as its text encoder.
//!
//! ```text
//! ids [B,T] -> embedding rows * sqrt(D)            x [B,T,D]
//!   per layer: x += post_norm(attention(input_norm(x)))        GQA, RoPE, logit softcap,
//!              x += post_norm(mlp(pre_norm(x)))                even layers see a sliding window
//! last_hidden_state = norm(x)                       [B,T,D]
//! ```
//!
//! Every RMSNorm multiplies by `1 + weight`. The language-model head is not part of this model:
//! `lm_head.weight` in a file is ignored.
//!
//! SANA puts one long constant instruction before every prompt; [`Gemma2Model::prefix`] keeps its
//! keys and values so that only the prompt's own tokens are computed. Attention is causal, so the
//! result is exact.

mod component;
mod config;
mod cost;
mod low_bit;
mod model;

pub use component::COMPONENT;
pub use config::{Gemma2Config, LayerType};
pub use low_bit::Gemma2Layout;
pub use model::{Gemma2Model, Prefix};
