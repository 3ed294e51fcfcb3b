//! The families of models, one folder each.

pub mod char_sam;
pub mod class_conditional;
mod decode;
pub mod hart;
pub mod hunyuan_video;
pub mod language;
pub mod sam;
pub mod sana;
pub mod similarity;
#[cfg(feature = "toy")]
pub mod toy;
pub mod vila_u;
