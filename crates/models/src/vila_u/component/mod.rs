//! The networks from outside.

mod draws;
mod language;
mod projector;
mod runs;
mod tower;

pub use language::COMPONENT as LANGUAGE_MODEL;
pub use projector::COMPONENT as PROJECTOR;
pub use tower::COMPONENT as TOWER;
