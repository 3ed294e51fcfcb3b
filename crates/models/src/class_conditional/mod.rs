//! The class-conditional diffusion transformers of the DC-AE paper (arXiv 2410.10733): from noise and a class to a latent of
//! that autoencoder.
//!
//! ```text
//! UViT (arXiv 2209.12152), trained with flow: USiT      DiT (arXiv 2212.09748), trained with flow: SiT (arXiv 2401.08740)
//! class, time, patches [B,2+N,d] + positions            patches [B,N,d] + sine-cosine positions
//! blocks, whose outputs are kept                        blocks, modulated by time + class
//! one block in the middle
//! blocks, each joined with what was kept last           norm modulated by time + class
//! norm -> linear -> patches back [B,h,w,C]              linear -> patches back [B,h,w,C or 2·C: variances too]
//! ```
//!
//! A class beyond the last is none at all: what is drawn with it guides away from it. [`sampler`] has the authors' ways
//! from noise to a latent, which is as the network sees it: the autoencoder's times its scaling factor.

mod component;
mod config;
mod cost;
mod dit;
mod keys;
mod layers;
mod model;
mod names;
mod published;
mod runs;
pub mod sampler;
mod u_vit;

pub use component::COMPONENT;
pub use config::{Architecture, ClassConditionalConfig, FeedForwardActivation, Scheduler};
pub use model::ClassConditionalTransformer;
pub use names::plain_names;
pub use published::{is_published, published_names};
