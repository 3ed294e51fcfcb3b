//! CLIP's networks from outside.

mod model;
mod text;

pub use model::MODEL;
pub use text::COMPONENT;
