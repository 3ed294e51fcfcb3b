//! Training of HunyuanVideo's causal autoencoder on clips of motion.

pub(crate) mod clips;
mod files;
mod recipe;
mod training;

pub(crate) use brisk_models::hunyuan_video::autoencoder::VideoAutoencoderConfig;
pub use files::VideoAutoencoderFiles;
pub use recipe::VideoAutoencoderRecipe;
pub use training::{VideoAutoencoderReport, train_video_autoencoder};
