//! Losses, optimisers, data sets and training loops.
//!
//! [`train_autoencoder`] and [`train_image`] run a [`recipe::Recipe`] on an [`data::pictures::PictureData`], and [`train_text`] one
//! on problems of [`data::arithmetic`], into a folder: a log, samples, the last two checkpoints, and at the end a model in the layout of published checkpoints. A run that was
//! killed continues from its checkpoint when the same call is made again, to the same weights as an uninterrupted one.
//!
//! Nothing here prints: progress goes to the [`Control`](brisk_pipelines::Control)'s listener, which can also ask a run to stop:
//! its checkpoint is written, and the call ends with [`Error::is_cancelled`].
//!
//! ```no_run
//! use brisk_pipelines::Control;
//! use brisk_train::{data::pictures::PictureData, recipe::Recipe, train_autoencoder};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data = PictureData::open("emoji128.safetensors".as_ref())?;
//! let Recipe::Autoencoder(recipe) = Recipe::open("emoji-autoencoder")? else { return Ok(()) };
//! let control = Control::new(|event| println!("{event:?}"));
//! train_autoencoder(&recipe, &data, None, None, "out".as_ref(), &control)?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod captions;
pub mod checker;
pub mod checkpoint;
pub mod data;
pub mod ema;
mod error;
pub mod eval;
mod families;
mod inputs;
mod kept;
mod latents;
pub mod log;
mod loss;
mod objectives;
pub mod optimiser;
mod pictures;
pub mod recipe;
mod recipe_changes;
mod recipe_checks;
pub mod rng;
pub mod schedule;
mod session;
mod shards;
mod sheet;
mod tensors;
mod terms;

pub use checker::{CheckerReport, train_checker};
pub use error::{Error, Result};
pub use families::autoencoder::{AutoencoderReport, train_autoencoder};
pub use families::class_conditional::{ClassLaw, ClassRecipe, ClassReport, train_class};
pub use families::codes::{
    CodesRecipe, DiffusionLoss, DropLaw, KeptPlaces, TokenizerFiles, open_codes_start, train_codes,
};
pub use families::detector::{DetectorRecipe, DetectorReport, DetectorScores, train_detector};
pub use families::dmd::{CriticOptions, DmdRecipe, DmdReport, distill_video};
pub use families::image::adapter::{AdapterReport, LoraOptions, train_adapter};
pub use families::image::controlnet::{ControlNetOptions, ControlNetReport, train_controlnet};
pub use families::image::surgery::{
    DepthSource, GrowOptions, GrowthReport, PruneReport, PruneTarget, PrunedBlock, Strategy, grow,
    prune, recipe_of,
};
pub use families::image::{ImageReport, Start, train_image};
pub use families::joint::{
    DepthSizes, JointRecipe, JointReport, JointStart, TowerFiles, open_joint_start, train_joint,
};
pub use families::masks::{MasksRecipe, MasksReport, train_masks};
pub use families::recogniser::{RecogniserRecipe, RecogniserReport, train_recogniser};
pub use families::sprint::{
    ScmProbe, SprintControl, SprintRecipe, SprintReport, SprintTeacher, distill_sprint,
};
pub use families::text::{TextReport, train_text};
pub use families::tokenizer::{
    QuantizationLoss, TokenizerRecipe, TokenizerReport, open_tokenizer, train_tokenizer,
};
pub use families::tower::{TowerRecipe, TowerReport, TowerStart, open_tower, train_tower};
pub use families::video::{
    FirstFrameNoise, FlowTarget, NewChannels, VideoRecipe, VideoReport, VideoStart, train_video,
};
pub use families::video_autoencoder::{
    VideoAutoencoderFiles, VideoAutoencoderRecipe, VideoAutoencoderReport, train_video_autoencoder,
};
pub use inputs::Inputs;
pub use loss::ReconstructionLoss;
pub use objectives::patch_gan::AdversarialOptions;
pub use objectives::perceptual::FeatureNetwork;
pub use pictures::{Augmentation, Selection, to_pictures};
pub use tensors::NamedArray;
