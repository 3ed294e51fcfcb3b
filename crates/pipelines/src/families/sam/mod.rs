//! Segment Anything: pictures with prompts in their own pixels, and masks of everything that there is.

mod crops;
mod everything;
mod frame;
mod overlap;
mod segmenter;

pub use crops::{Crop, crops};
pub use everything::{Everything, FoundMask, PointMasks, SegmentPoints};
pub use frame::Frame;
pub use segmenter::{PicturePrompt, PredictedMasks, Segmenter};
