//! From a request to pixels: schedulers, guidance, noise, tiling, progress.
//!
//! [`sana::SanaPipeline`] loads a model folder and turns an [`ImageRequest`] into pictures, reporting
//! through a [`Control`]. The parts stand alone: [`schedulers`] are time grids and update rules,
//! [`noise`] draws what torch draws, [`guidance`] combines velocities, [`resolution`] knows the trained
//! sizes, [`memory`] estimates.
//!
//! This crate knows no command line and prints nothing; [`quantize`] alone writes files. Layers and architectures live in
//! `brisk-models`.
//!
//! ```no_run
//! use brisk_pipelines::sana::{LoadOptions, SanaPipeline};
//! use brisk_pipelines::{Control, ImageRequest};
//! use brisk_store::ModelFolder;
//!
//! let folder = ModelFolder::Disk("models/sana".into());
//! let mut pipeline = SanaPipeline::load(folder, &LoadOptions::default())?;
//! let request = ImageRequest { seed: 7, ..ImageRequest::new("a red heart") };
//! let images = pipeline.generate(&request, &mut Control::silent())?;
//! assert_eq!(images[0].picture.width, 1024);
//! # Ok::<(), brisk_pipelines::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod error;
pub mod events;
pub mod guidance;
pub mod language;
pub mod memory;
pub mod noise;
pub mod quantize;
mod random_weights;
pub mod request;
pub mod resolution;
pub mod sana;
pub mod schedulers;

pub use error::{Error, Result};
pub use events::{Control, Event};
pub use random_weights::RandomWeights;
pub use request::{
    Capabilities, ControlImage, DecodeMode, ImageRequest, InitImage, Instruction, Latents,
    ModelKind,
};
