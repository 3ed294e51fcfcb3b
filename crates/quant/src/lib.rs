//! SVDQuant (arXiv 2411.05007): 4-bit weights beside a 16-bit low-rank branch.
//!
//! ```text
//! y = Q_a(x / smooth)·Q_w(R)ᵀ + (x·downᵀ)·upᵀ + bias,    W·diag(smooth) ≈ up·(down·diag(smooth)) + R
//! ```
//!
//! - [`layout`]: where each number stands in a file of the nunchaku engine.
//! - [`record`]: one layer as it is stored, in plain order ([`Record`]); [`w4a16`]: one whose inputs are
//!   not rounded ([`Awq`]).
//! - [`file`](mod@file): the containers: single file, legacy folder; [`lite`]: diffusers' configuration.
//! - [`groups`]: what a model says of its layers ([`LowBitLayout`], [`AwqLayout`]); [`model`]: its files
//!   under its own names, by what it said.
//! - [`integer`], [`nvfp4`], [`smooth`], [`svd`], [`gptq`], [`method`]: how a layer is quantized.
//! - [`awq`]: the same for layers whose inputs are not rounded, as those of text encoders.
//!
//! This crate knows no tensor library and no model by name: matrices are slices, row-major.
//!
//! ```
//! use brisk_quant::{Calibration, Method, Settings, quantize};
//!
//! let weight: Vec<f32> = (0..64 * 64).map(|i| (i % 61) as f32 / 61.0 - 0.5).collect();
//! let inputs: Vec<f32> = (0..32 * 64).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
//! let settings = Settings { rank: 16, ..Settings::new(Method::SvdQuant) };
//! let calibration = Calibration { inputs: &inputs, width: 64 };
//! let result = quantize(&[&weight[..]], &[64], calibration, &settings)?;
//! assert!(result.error.relative() < 0.2);
//! # Ok::<(), brisk_quant::Error>(())
//! ```

#![forbid(unsafe_code)]

mod arrange;
pub mod awq;
mod error;
pub mod file;
pub mod gptq;
pub mod groups;
pub mod integer;
mod joined;
pub mod layout;
pub mod lite;
pub mod method;
pub mod model;
pub mod nvfp4;
mod plain;
mod reader;
mod rearranged;
pub mod record;
pub mod smooth;
pub mod svd;
pub mod w4a16;

pub use awq::{AwqLayers, AwqSettings, quantize_awq};
pub use brisk_kernels::int4::{Branch, HalfType, Int4Weight};
pub use error::{Error, Result};
pub use file::NunchakuFile;
pub use groups::{AwqLayout, LayerGroup, LowBitLayout};
pub use joined::join;
pub use method::{Calibration, LayerError, Method, Quantized, Settings, quantize};
pub use model::LowBitModel;
pub use plain::plain_to_file;
pub use reader::{dtype_of, half_of};
pub use record::{Codes, Record};
pub use w4a16::Awq;
