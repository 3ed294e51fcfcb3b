//! Training, a folder or file each kind of network: the only places of this crate that know networks by name.

pub(crate) mod autoencoder;
pub(crate) mod codes;
pub(crate) mod detector;
mod fixed_norms;
pub(crate) mod image;
pub(crate) mod joint;
pub(crate) mod masks;
pub(crate) mod recogniser;
pub(crate) mod sprint;
pub(crate) mod text;
pub(crate) mod tokenizer;
pub(crate) mod tower;
