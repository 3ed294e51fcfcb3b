//! From a request to pixels, text or masks.
//!
//! A request ([`ImageRequest`], [`TextRequest`], [`MaskRequest`]) is put to a model that [`registry`] opens, which plans it
//! (every decision, once) and carries the plan out, reporting through a [`Control`]. What can be asked
//! for stands in [`options`]; the loops that families share stand in [`diffusion`] and
//! [`autoregressive`]; each family has its
//! folder in [`families`].
//!
//! This crate knows no command line and prints nothing; [`quantize`], files for quantized weights and copies of what a
//! model's folder has beside them are all that it writes. Layers and architectures live in `brisk-models`.
//!
//! ```no_run
//! use brisk_pipelines::options::keys;
//! use brisk_pipelines::{Control, ImageRequest, OpenSettings, registry};
//! use brisk_store::ModelFolder;
//!
//! let folder = ModelFolder::Disk("models/sana".into());
//! let mut model = registry::open_image(&folder, &OpenSettings::default())?;
//! let request = ImageRequest::new("a red heart").with(&keys::SEED, 7);
//! let images = model.draw(&request, &Control::silent())?;
//! assert_eq!(images[0].picture.width, 1024);
//! # Ok::<(), brisk_pipelines::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod autoregressive;
mod block_importance;
mod default_guidance;
pub mod device;
pub mod diffusion;
pub mod error;
mod estimate;
mod evaluation_clips;
mod evaluation_pictures;
pub mod events;
pub mod families;
pub mod folder;
pub mod judging;
mod known_prompts;
mod low_bit_settings;
pub mod machine;
pub mod memory;
mod only_size;
pub mod options;
pub mod quantize;
mod random;
pub mod registry;
pub mod reproduce;
pub mod request;
mod residency;
mod rest_of_folder;
mod tokenizer;
mod turns;
pub mod vision_preparation;

pub use block_importance::{BlockImportance, BlockWatcher};
pub use brisk_models::Cost;
pub use error::{Error, Result};
pub use estimate::{Estimator, StageSeconds};
pub use evaluation_clips::{EvaluationClips, KnownClip};
pub use evaluation_pictures::{EvaluationPictures, NamedPicture};
pub use events::{Control, Event, Number, Unit};
pub use known_prompts::KnownPrompts;
pub use request::{
    FirstFrame, FramePlace, GeneratedClip, GeneratedImage, GeneratedMask, GeneratedMasks,
    GeneratedText, ImageModel, ImagePlan, ImageRequest, MaskModel, MaskPlan, MaskPrompt,
    MaskRequest, OpenSettings, RandomWeights, ResultKind, SequenceId, TextModel, TextPlan,
    TextPrompt, TextRequest, TextSession, VideoModel, VideoPlan, VideoRequest,
};
pub use residency::Residency;
pub use rest_of_folder::copy_rest;
pub use turns::{Turns, waited};
