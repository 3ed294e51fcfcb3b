//! Clips: as files, of several runs of a model, and the first frame of one drawn from its prompt.

mod file;
mod first_frame;
mod windows;

pub use file::{ClipFile, describe_clip, write_clip_latents};
pub use first_frame::{draw_first_frame, place_first_frame, plan_first_frame};
pub use windows::{LongClip, Windows};
