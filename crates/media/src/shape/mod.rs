//! Shapes seen aslant.

mod projective;

pub use projective::{Place, Projective};
