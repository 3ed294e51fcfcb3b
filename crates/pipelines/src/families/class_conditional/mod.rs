//! Class-conditional transformers of the DC-AE paper (UViT, DiT, USiT and SiT): from a class to pictures.
//!
//! ```text
//! prompt: number or name of a class
//! noise [B, C, n, n] ──(steps × guidance branches) transformer──▶ latent ──decoder──▶ picture
//! ```
//!
//! A model is a folder with the network's `config.json` and weights, and beside them `vae/`; published files hold the
//! autoencoder among their own tensors. Names of classes are those that the folder brings along.

mod classes;
mod load;
mod model;
mod needs;
pub mod options;
mod pipeline;
mod plan;
mod published;
mod reproduce;

use brisk_store::ModelFolder;

use crate::options::Options;
use crate::registry::Family;
use crate::request::ResultKind;

/// The family.
pub static FAMILY: Family = Family {
    name: "class-conditional",
    about: "class-conditional UViT, DiT, USiT and SiT",
    recognise: |folder: &ModelFolder, _given: &Options| load::place(folder).is_some(),
    supports: &[
        (ResultKind::Pictures, &options::NOISE),
        (ResultKind::Pictures, &options::FLOW),
    ],
    published: published::PUBLISHED,
    image: Some(model::open),
    text: None,
    masks: None,
    video: None,
    judge: None,
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[&reproduce::DC_AE],
};
