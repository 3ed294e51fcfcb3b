//! SANA's diffusion transformer: SANA, SANA-1.5 and SANA-Sprint in every published size.
//!
//! ```text
//! latent [B,h,w,C] -> patch embedding (+ sin-cos positions at 2K and 4K)      x [B,N,d]
//! timestep [B] (+ guidance [B] for Sprint) -> e [B,d] -> modulation [B,6d]
//! text [B,L,D] -> projection, RMSNorm -> c [B,L,d] -> per block K,V           once a prompt
//! per block:  x += gate1 * linear_attention(LN(x) modulated)      O(N), no softmax (§2.2 of the paper)
//!             x += cross_attention(x, c)                          no norm, no gate
//!             x += gate2 * mix_ffn(LN(x) modulated)               3x3 depthwise conv: the only
//!                                                                 source of position by default
//! LN(x) modulated by e -> linear -> unpatchify                                [B,h,w,Cout]
//! ```
//!
//! The output is the flow velocity (Sprint: the network's raw prediction), with every output
//! channel: a learned-sigma model's second half is for the caller to drop. The timestep is used as
//! given; scaling it belongs to the pipeline.

mod block;
mod caption;
pub(crate) mod component;
mod config;
mod cost;
mod embed;
mod low_bit;
mod model;
pub mod native;
mod position;

pub(crate) use block::SanaBlock;
pub(crate) use caption::CaptionEncoder;
pub use caption::{CaptionContext, compact_text};
pub use component::COMPONENT;
pub use config::{Numerics, QkNorm, SanaConfig};
pub(crate) use embed::{PatchEmbed, TimeEmbed};
pub use low_bit::{SanaLayout, parameters, with_random_low_bit};
pub use model::{ControlWiring, ForwardExtras, Perturbed, SanaTransformer};
