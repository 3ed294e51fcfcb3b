//! Pictures of text in scenes, with exact truth: which pixels belong to which letter of which word.
//!
//! ```text
//! letters of a word, drawn flat (word.rs) ──bent, turned, seen aslant (warp.rs)──▶ coverage of every letter
//! background (background.rs) + shadow + outline + fill ──blurred, disturbed──▶ picture (scene.rs)
//! ```
//!
//! A pixel is a letter's where the letter covers half of it, and shadow and outline are not the letter. Everything
//! follows from a seed and a number.

mod background;
mod scene;
mod warp;
mod word;

pub use scene::{SceneText, SceneTextOptions, TrueLetter, TrueWord};
pub use word::{Fonts, LETTERS};
