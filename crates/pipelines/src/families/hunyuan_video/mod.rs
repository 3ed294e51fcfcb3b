//! HunyuanVideo: from a text, and a picture that it begins with, to a clip.
//!
//! ```text
//! picture ──vision encoder──┐
//! prompt ──text encoder─────┴▶ rows of picture and text ──┐
//! prompt ──CLIP──▶ the text as a whole ───────────────────┤
//! picture ──encoder──▶ latent of the first frame ─────────┼─transformer, step by step─▶ latent ──decoder──▶ frames
//! noise of the seed ──────────────────────────────────────┘
//! ```

mod cost;
mod defaults;
mod load;
mod memory;
mod model;
pub mod options;
pub mod picture;
mod pipeline;
mod plan;
pub mod prompt;
mod quantize;
mod reproduce;
pub mod text;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::{Family, Published};
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "hunyuan_video",
    about: "HunyuanVideo",
    recognise: |folder: &ModelFolder, _given: &Options| load::is_ours(folder),
    supports: &[(ResultKind::Clips, &options::HUNYUAN_VIDEO)],
    published: &[
        Published {
            id: "hunyuanvideo-community/HunyuanVideo-I2V-33ch",
            model: "HunyuanVideo I2V 13B",
            pixels: 720,
            note: "begins with a picture, whose latent stands beside the noise; the network of Magic 1-For-1",
            discouraged: false,
        },
        Published {
            id: "hunyuanvideo-community/HunyuanVideo-I2V",
            model: "HunyuanVideo I2V 13B",
            pixels: 720,
            note: "begins with a picture, whose latent stands in place of the noise",
            discouraged: false,
        },
        Published {
            id: "hunyuanvideo-community/HunyuanVideo",
            model: "HunyuanVideo 13B",
            pixels: 720,
            note: "from text alone",
            discouraged: false,
        },
    ],
    image: None,
    text: None,
    masks: None,
    video: Some(model::open),
    judge: None,
    class_in_words: |class| match class {
        "HunyuanVideoPipeline" => Some("HunyuanVideo, from text"),
        "HunyuanVideoImageToVideoPipeline" => Some("HunyuanVideo, from a picture"),
        _ => None,
    },
    low_bit_layout: Some(quantize::low_bit_layout),
    reproductions: &[&reproduce::MAGIC141],
};
