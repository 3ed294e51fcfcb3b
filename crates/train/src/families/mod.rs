//! Training, a folder or file each kind of network: the only places of this crate that know networks by name.

pub(crate) mod autoencoder;
pub(crate) mod class_conditional;
pub(crate) mod codes;
pub(crate) mod detector;
pub(crate) mod dmd;
mod fixed_norms;
pub(crate) mod image;
pub(crate) mod joint;
mod lora_pairs;
pub(crate) mod masks;
mod part_weights;
pub(crate) mod recogniser;
pub(crate) mod sprint;
pub(crate) mod text;
pub(crate) mod tokenizer;
pub(crate) mod tower;
pub(crate) mod video;
pub(crate) mod video_autoencoder;
