//! CRAFT (arXiv 1904.01941): where characters are in a picture, and which of them belong together.
//!
//! ```text
//! picture [B,H,W,3] ── VGG16 ──▶ maps at 1/2, 1/4, 1/8, 1/16 ── dilated convolution ──▶ 1/16
//!                                 │      │      │      └──────────────────────────────────┐ │
//!                                 └──────┴──────┴─▶ joined from the deepest up ◀──────────┴─┘
//!                                                   ──▶ region and affinity [B,H/2,W/2,2]
//! ```
//!
//! Of the maps that are joined, those at 1/2, 1/4 and 1/8 are seen behind their activation and the one at 1/16
//! before it: the published network was trained so, as its activations work in place.

mod component;
mod config;
mod cost;
mod model;
mod names;
mod refiner;

pub use component::COMPONENT;
pub use config::CraftConfig;
pub use model::{Craft, Scores};
pub use names::plain_names;
pub use refiner::{LinkRefiner, LinkRefinerConfig};
