//! NVIDIA cards: driver, memory, kernels and their launches.
//!
//! The driver's library is opened when a [`Device`] is; nothing of CUDA is needed to build or to start.
//! Kernels (`kernels/`) are compiled ahead of time (`compiled/`, by the tool `compile-kernels`). A
//! [`Tensor`] lies on a device, always without gaps; [`ops`] are what can be done with it. Memory is bf16
//! and sums are f32, or everything is f32 ([`Precision`]).
//!
//! Operations are queued on one stream of a device and run in the order they were called; a download
//! waits for them. This crate knows no tensor library and no model.

pub mod driver;

mod card;
mod device;
mod error;
mod machine_code;
mod memory;
pub mod ops;
pub mod suite;
mod symbols;
mod tensor;

pub use card::{Found, cards};
pub use device::{Device, Precision};
pub use error::{Error, Result};
pub use machine_code::{SOURCES, TARGETS, fingerprint, target};
pub use tensor::{Element, Tensor};
