//! What models share that draw codes one after another, or scale after scale.

mod sampling;

pub use sampling::Sampling;
