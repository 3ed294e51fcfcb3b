//! VILA-U, one model that reads and writes pictures (arXiv 2409.04429).
//!
//! ```text
//! picture ── SigLIP, all layers but the last ──▶ grid of vectors ── residual quantization ──▶ D codes a place
//!                                                                                               │ their sum
//! text ids ── embedding ─┐                                          projector ◀─────────────────┤
//!                        ▼                                              │                       │
//!                   Llama over text and places ◀────────────────────────┘                       ▼
//!                        │ hidden state                                              VQGAN decoder ──▶ picture
//!                        ├─ head ──▶ next token of a text
//!                        └─ depth transformer ──▶ D codes of the next place, one after another
//! ```
//!
//! [`tower`] holds SigLIP's layers, the codebooks, the decoder and the depth transformer, as the published
//! file does; [`projector`] takes sums of codewords to embeddings of the language model, which is
//! [`LanguageModel`](crate::language_model::LanguageModel); [`Generator`] draws with all of them.

mod component;
pub mod depth;
mod generate;
pub mod projector;
pub mod tower;

pub use component::{LANGUAGE_MODEL, PROJECTOR, TOWER};
pub use generate::{Chooser, Drawn, Generator, Greedy, Request};
