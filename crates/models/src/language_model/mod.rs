//! Language models: one transformer, its differences in the configuration. Most of them diffuse.
//!
//! ```text
//! ids, a packed run of tokens of several sequences        x [1,T,D] = embedding rows
//!   per layer: x += out(attention(norm(x)))               GQA, RoPE, optional norm of q and k
//!              x += mlp(norm(x))                          SwiGLU, or a mixture of experts
//! hidden = norm(x), only of the rows that are wanted      [n,D]
//! logits = head(hidden)                                   [n,V]
//! ```
//!
//! | configuration | models | attention | prediction of token i |
//! |---|---|---|---|
//! | `LLaDAModelLM` | LLaDA-8B, LLaDA-1.5, iLLaDA (arXiv 2502.09992) | every key | row i |
//! | `DreamModel` | Dream-7B (arXiv 2508.15487) | every key | row i − 1 |
//! | `a2d-qwen2`, `a2d-qwen3`, `a2d-llama` | small models converted from autoregressive ones | every key, or blocks | row i |
//! | `Fast_dLLM_Qwen` | Fast-dLLM v2 (arXiv 2509.26328) | blocks | row i − 1 |
//! | `sdar` | SDAR (arXiv 2510.06303) | blocks | row i |
//! | `num_experts` under `llada` or `lladamoe` | LLaDA-MoE | every key | row i |
//! | `llada2_moe` | LLaDA2.0, LLaDA2.1 | blocks | row i |
//! | `LlamaForCausalLM` | Llama (arXiv 2307.09288), as other models have it within | blocks of one token | row i − 1 |
//!
//! "Blocks" is block-causal attention: a query sees its own block and all earlier ones, counted
//! from the start of the sequence.
//!
//! Sequences of different lengths are packed one after another, each with its own positions and
//! keys, so that a batch computes exactly what its rows compute alone.

mod component;
mod config;
mod cost;
mod layer;
mod model;
mod names;
mod published;

pub use component::COMPONENT;
pub(crate) use component::part;
pub use config::{Attention, Family, LanguageModelConfig, QueryKeyNorm};
pub use model::{LanguageModel, Place, Rows, Span};
