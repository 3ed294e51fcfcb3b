//! Scenes: pictures composed of emoji, with captions and exact truth.
//!
//! A [`Scene`] is drawn by lot from a seed and an index, of one of six [`Kind`]s, those of GenEval (arXiv
//! 2310.11513): it says which objects in which colours stand where. [`Drawings`] renders it, with the mask of
//! each object. One combination in ten is held out ([`Split`]), so that composing can be told from remembering.

mod asked;
mod caption;
mod colour;
mod drawings;
mod prepare;
mod scene;
mod split;
mod words;

#[cfg(test)]
pub(crate) use drawings::tests::packages_of;
pub(crate) use words::with_article;

pub use asked::{Asked, AskedItem};
pub use caption::{Question, WORDINGS};
#[cfg(test)]
pub(crate) use drawings::tests::packages;
pub use drawings::{Drawings, Rendered};
pub use prepare::{SceneOptions, SceneReport, prepare_scenes, scene_of};
pub use scene::{Frame, Item, Kind, Scene};
pub use split::Split;
pub use words::{Colour, FURTHER_OBJECTS, OBJECTS, Object, Place, Relation, all_objects};
