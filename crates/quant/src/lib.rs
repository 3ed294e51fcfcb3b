//! SVDQuant (arXiv 2411.05007): 4-bit weights beside a 16-bit low-rank branch.
//!
//! ```text
//! y = Q_a(x / smooth)·Q_w(R)ᵀ + (x·downᵀ)·upᵀ + bias,    W·diag(smooth) ≈ up·(down·diag(smooth)) + R
//! ```
//!
//! - [`layout`]: where each number stands in a file of the nunchaku engine.
//! - [`record`]: one layer as it is stored, in plain order ([`Record`]).
//! - [`file`](mod@file): the containers: single file, legacy folder, configuration.
//! - [`sana`]: the names that SANA's layers have in those files.
//! - [`integer`], [`smooth`], [`svd`], [`gptq`], [`method`]: how a layer is quantised.
//! - [`awq`]: the same for layers whose inputs are not rounded, as those of text encoders.
//!
//! This crate knows no tensor library and runs no model: matrices are slices, row-major.
//!
//! ```
//! use brisk_quant::{Calibration, Method, Settings, quantise};
//!
//! let weight: Vec<f32> = (0..64 * 64).map(|i| (i % 61) as f32 / 61.0 - 0.5).collect();
//! let inputs: Vec<f32> = (0..32 * 64).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
//! let settings = Settings { rank: 16, ..Settings::new(Method::SvdQuant) };
//! let calibration = Calibration { inputs: &inputs, width: 64 };
//! let result = quantise(&[&weight[..]], &[64], calibration, &settings)?;
//! assert!(result.error.relative() < 0.2);
//! # Ok::<(), brisk_quant::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod awq;
mod error;
pub mod file;
pub mod gptq;
pub mod integer;
pub mod layout;
pub mod method;
pub mod record;
pub mod sana;
pub mod smooth;
pub mod svd;

pub use awq::{AwqLayers, AwqSettings, quantise_awq};
pub use error::{Error, Result};
pub use file::NunchakuFile;
pub use method::{Calibration, LayerError, Method, Quantised, Settings, quantise};
pub use record::{Awq, Branch, Codes, HalfType, Record};
