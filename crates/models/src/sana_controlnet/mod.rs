//! SANA's ControlNet: copies of the first blocks that steer a transformer by a control picture.
//!
//! ```text
//! control latent -> patch embedding -> input projection        P e_c [B,N,d]
//! start + P e_c -> copied block 0 -> copied block 1 -> …       each output -> residual j [B,N,d]
//! ```
//!
//! Two wirings exist, and the published checkpoints were trained with the second
//! ([`ControlWiring`](crate::sana::ControlWiring)): with diffusers' the copies start from the
//! latent's embedding; with the authors' they start from the transformer's
//! [`first_block`](crate::sana::SanaTransformer::first_block). The transformer adds the residuals.

mod component;
mod config;
mod cost;
mod model;
pub mod native;

pub use component::COMPONENT;
pub use config::SanaControlNetConfig;
pub use model::{ControlStart, SanaControlNet};
