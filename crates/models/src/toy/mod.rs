//! A velocity network as small as one can be: of each word it knows a picture, and how far pictures of a
//! word lie from it.
//!
//! Where pictures of a word are m + s·ε, noised x = (1 − σ)·x₀ + σ·ε has the expected velocity
//!
//! ```text
//! E[ε − x₀ | x] = (σ − (1 − σ)·s²) / (σ² + (1 − σ)²·s²) · (x − (1 − σ)·m) − m
//! ```
//!
//! With s = 0 that is (x − m)/σ, the same all along the way: any number of steps reaches m. It shows what
//! a network has to bring along, and takes the tests through every verb in no time.

mod component;
mod config;
mod cost;
mod model;

pub use component::COMPONENT;
pub use config::ToyConfig;
pub use model::{LEVELS, ToyModel};
