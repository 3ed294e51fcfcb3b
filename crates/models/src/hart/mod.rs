//! HART, the hybrid autoregressive transformer (arXiv 2410.10812).
//!
//! ```text
//! text rows [B,L,D] ── transformer ──▶ codes of 1×1, 2×2, … places, scale by scale
//!                         ▲    │
//!      sum so far, resized│    └─ last scale: hidden states ── diffusion head ──▶ what no codeword holds
//!                         │                                          │
//!                    quantizer ◀── codewords ────────────────────────┴──▶ sum ── decoder ──▶ picture
//! ```
//!
//! [`tokenizer`] turns pictures into codes of several scales and latents into pictures; [`transformer`]
//! predicts the codes and holds the diffusion head; [`Generator`] draws with both.

mod component;
mod generate;
mod scales;
pub mod tokenizer;
pub mod transformer;

pub use component::COMPONENT;
pub use generate::{Chooser, Chosen, Drawn, Generator, Greedy, RESIDUAL_SCALE, Request, Stage};
pub use scales::Scales;
