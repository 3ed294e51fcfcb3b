//! The models: one folder a system, each with its configuration and forward pass.
//!
//! A model is a configuration read from the published `config.json` (`config.rs`), and a struct
//! of blocks from `brisk-nn` whose names mirror the checkpoint (`model.rs`). Nothing here knows
//! prompts, schedulers or pictures: tensors in, tensors out. Feature maps are `[B,H,W,C]`, tokens
//! `[B,N,C]`, everything f32; weights may stay bf16 or f16 in memory.
//!
//! ```no_run
//! use brisk_models::sana::{ForwardExtras, SanaConfig, SanaTransformer};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (latent, timestep, text) = {
//! #     let t = brisk_nn::Tensor::zeros(1, brisk_nn::DType::F32)?;
//! #     (t.clone(), t.clone(), t)
//! # };
//! let config = SanaConfig::from_json(&std::fs::read("transformer/config.json")?, "config.json")?;
//! let source = brisk_store::open_weights("transformer/model.safetensors".as_ref())?;
//! let model = SanaTransformer::load(&config, &brisk_nn::Weights::from_source(source))?;
//! let caption = model.encode_caption(&text, &[12])?;
//! let velocity = model.forward(&latent, &timestep, None, &caption, &ForwardExtras::default())?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod buffers;
pub mod class_conditional;
pub mod clip;
pub mod component;
mod config;
mod cost;
pub mod craft;
pub mod crnn;
pub mod dcae;
pub mod diffusion_schedule;
pub mod foreign;
pub mod gemma2;
pub mod hart;
pub mod hunyuan_video;
pub mod language_model;
pub mod llava;
pub mod low_bit;
pub mod qwen2;
pub mod registry;
mod rows;
pub mod sam;
pub mod sana;
pub mod sana_controlnet;
mod tiled;
#[cfg(feature = "toy")]
pub mod toy;
pub mod vila_u;
mod vqgan;

pub use brisk_nn::{Error, Result};
pub use cost::Cost;
