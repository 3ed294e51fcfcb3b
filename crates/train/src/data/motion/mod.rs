//! Clips of motion: an emoji that does one thing, with a caption and exact truth.
//!
//! A [`MotionScene`] is drawn by lot from a seed and an index: which object, in whose drawing and which colour, does
//! which [`Motion`], from where and how far. [`MotionScene::render`] draws its frames. One pair of object and motion in
//! ten is held out ([`Split`](super::scenes::Split)). [`judge`] tells by tracking which motion a clip shows, whoever made it.

mod judge;
mod render;
mod scene;

pub use judge::{MotionVerdict, judge};
pub use scene::{Motion, MotionScene, Pose};
