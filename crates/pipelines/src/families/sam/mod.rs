//! Segment Anything: pictures with prompts in their own pixels, and masks of everything that there is.
//!
//! ```text
//! picture ──resized into the frame──▶ image encoder ──▶ embedding, once a picture (or of a file)
//! points and boxes of a request, or a grid of points ──▶ mask decoder ──▶ logits over the frame
//!     ──▶ logits over the picture ──threshold──▶ masks, their expected quality, their stability
//! ```

mod crops;
mod everything;
mod files;
mod frame;
mod model;
pub mod options;
mod overlap;
mod plan;
mod segmenter;

use crate::registry::Published;

pub use crops::{Crop, crops};
pub use everything::{Everything, FoundMask, PointMasks, SegmentPoints};
pub(super) use files::recognise;
pub use frame::Frame;
pub(super) use model::SamModel;
pub use segmenter::{CoarseMask, PicturePrompt, PredictedMasks, Segmenter};

/// Checkpoints that people publish.
pub(super) const PUBLISHED: &[Published] = &[
    published(
        "facebook/sam-vit-base",
        "Segment Anything ViT-B",
        "94 million parameters",
    ),
    published(
        "facebook/sam-vit-large",
        "Segment Anything ViT-L",
        "312 million parameters",
    ),
    published(
        "facebook/sam-vit-huge",
        "Segment Anything ViT-H",
        "641 million parameters",
    ),
];

const fn published(id: &'static str, model: &'static str, note: &'static str) -> Published {
    Published {
        id,
        model,
        pixels: 1024,
        note,
        discouraged: false,
    }
}
