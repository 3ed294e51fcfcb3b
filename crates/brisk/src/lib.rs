//! Pictures, text, clips and masks from efficient generative models, on a plain CPU, without Python.
//!
//! ```no_run
//! use brisk::{Control, ImageRequest, keys};
//!
//! let mut model = brisk::open_image("sana-emoji")?;
//! let request = ImageRequest::new("red heart").with(&keys::SEED, 7);
//! for image in model.draw(&request, &Control::silent())? {
//!     std::fs::write("heart.png", brisk::png(&image)?).unwrap();
//! }
//! # Ok::<(), brisk::Error>(())
//! ```
//!
//! A model is named by its folder, its hub id, or the name of one [in the box](BoxModel). [`open`] looks
//! at its files and gives what it is; [`open_image`] and [`open_text`] insist on a kind. A model plans a
//! request, which decides everything, and carries plans out, reporting through a [`Control`].
//! [`keys`] and the families' own options are the same as the command line's. [`quantize`](mod@quantize)
//! makes models smaller. A thread that computes is faster as [one of its pool](join_own_pool).
#![forbid(unsafe_code)]

mod beside;
mod best_of;
mod box_models;
mod clips;
mod description;
mod find;
mod masks;
mod redraw;

pub use beside::{report, write_codes, write_latents, write_sheet};
pub use best_of::{Best, BestOf, Candidate, Winner, best_of};
pub use box_models::BoxModel;
pub use brisk_media::Picture;
pub use brisk_pipelines::events::Work;
pub use brisk_pipelines::judging;
pub use brisk_pipelines::machine::{OwnPool, join_own_pool};
pub use brisk_pipelines::options::{self, Options, keys};
pub use brisk_pipelines::quantize;
pub use brisk_pipelines::registry::{self, Published};
pub use brisk_pipelines::request::{
    Canvas, FinishReason, PREVIEWS, PlannedImage, StageCost, StageMemory, WeightBytes,
};
pub use brisk_pipelines::{
    BlockImportance, Control, Cost, Error, Estimator, Event, FirstFrame, FramePlace, GeneratedClip,
    GeneratedImage, GeneratedMask, GeneratedMasks, GeneratedText, ImageModel, ImagePlan,
    ImageRequest, KnownPrompts, MaskModel, MaskPlan, MaskPrompt, MaskRequest, Number, OpenSettings,
    Result, ResultKind, SequenceId, TextModel, TextPlan, TextPrompt, TextRequest, TextSession,
    Turns, Unit, VideoModel, VideoPlan, VideoRequest,
};
pub use brisk_store::ModelFolder;
pub use brisk_store::hub::HubProgress;
pub use clips::{
    ClipFile, LongClip, Windows, describe_clip, draw_first_frame, place_first_frame,
    plan_first_frame, write_clip_latents,
};
pub use description::{PARAMETERS_KEYWORD, REQUEST_KEYWORD, describe, described_png};
pub use find::{Cached, Found, cached, find, find_file, find_path, folder_bytes};

pub use masks::{
    Annotations, FolderReport, MaskFiles, PictureFolder, describe_mask, describe_word,
};
pub use redraw::{Redraw, redraw};

use std::sync::Arc;

use brisk_store::hub::NoProgress;

/// A model, by what it gives.
pub enum Model {
    /// Pictures.
    Image(Box<dyn ImageModel>),
    /// Text.
    Text(Box<dyn TextModel>),
    /// Masks.
    Masks(Box<dyn MaskModel>),
    /// Clips.
    Video(Box<dyn VideoModel>),
}

/// Opens a model by its name and gives what it is. A hub id that is not in the local cache is downloaded.
///
/// # Errors
/// No such model, or files that are missing, damaged, or do not fit together.
pub fn open(name: &str) -> Result<Model> {
    let found = find(Some(name), None, ResultKind::Pictures, &NoProgress)?;
    let settings = settings(Options::new());
    let family = registry::family_of(&found.folder, &settings.options);
    match family.map(|family| family.results()) {
        Some(results) if results == [ResultKind::Text] => {
            Ok(Model::Text(registry::open_text(&found.folder, &settings)?))
        }
        Some(results) if results == [ResultKind::Masks] => Ok(Model::Masks(registry::open_masks(
            &found.folder,
            &settings,
        )?)),
        Some(results) if results == [ResultKind::Clips] => Ok(Model::Video(registry::open_video(
            &found.folder,
            &settings,
        )?)),
        _ => Ok(Model::Image(registry::open_image(
            &found.folder,
            &settings,
        )?)),
    }
}

/// Opens a model that draws.
///
/// # Errors
/// As [`open`]; also a model that gives something else.
pub fn open_image(name: &str) -> Result<Box<dyn ImageModel>> {
    open_image_with(name, Options::new())
}

/// As [`open_image`], with options of opening.
///
/// # Errors
/// As [`open_image`]; also an option that this model does not honour.
pub fn open_image_with(name: &str, options: Options) -> Result<Box<dyn ImageModel>> {
    let variant = options.get(&keys::VARIANT);
    let found = find(
        Some(name),
        variant.as_deref(),
        ResultKind::Pictures,
        &NoProgress,
    )?;
    registry::open_image(&found.folder, &settings(options))
}

/// Opens a model that writes.
///
/// # Errors
/// As [`open`]; also a model that gives something else.
pub fn open_text(name: &str) -> Result<Box<dyn TextModel>> {
    open_text_with(name, Options::new())
}

/// As [`open_text`], with options of opening.
///
/// # Errors
/// As [`open_text`]; also an option that this model does not honour.
pub fn open_text_with(name: &str, options: Options) -> Result<Box<dyn TextModel>> {
    let variant = options.get(&keys::VARIANT);
    let found = find(
        Some(name),
        variant.as_deref(),
        ResultKind::Text,
        &NoProgress,
    )?;
    registry::open_text(&found.folder, &settings(options))
}

/// Opens a model that finds pixels; a single weights file serves too.
///
/// # Errors
/// As [`open`]; also a model that gives something else.
pub fn open_masks(name: &str) -> Result<Box<dyn MaskModel>> {
    open_masks_with(name, Options::new())
}

/// As [`open_masks`], with options of opening.
///
/// # Errors
/// As [`open_masks`]; also an option that this model does not honour.
pub fn open_masks_with(name: &str, options: Options) -> Result<Box<dyn MaskModel>> {
    let variant = options.get(&keys::VARIANT);
    let found = find(
        Some(name),
        variant.as_deref(),
        ResultKind::Masks,
        &NoProgress,
    )?;
    registry::open_masks(&found.folder, &settings(options))
}

/// Opens a model that makes clips.
///
/// # Errors
/// As [`open`]; also a model that gives something else.
pub fn open_video(name: &str) -> Result<Box<dyn VideoModel>> {
    open_video_with(name, Options::new())
}

/// As [`open_video`], with options of opening.
///
/// # Errors
/// As [`open_video`]; also an option that this model does not honour.
pub fn open_video_with(name: &str, options: Options) -> Result<Box<dyn VideoModel>> {
    let variant = options.get(&keys::VARIANT);
    let found = find(
        Some(name),
        variant.as_deref(),
        ResultKind::Clips,
        &NoProgress,
    )?;
    registry::open_video(&found.folder, &settings(options))
}

/// Settings whose options may name any model that [`find`] finds.
pub fn settings(options: Options) -> OpenSettings {
    settings_with::<NoProgress>(options)
}

/// As [`settings`]; each download reports to a progress of its own.
pub fn settings_with<P: HubProgress + Default + 'static>(options: Options) -> OpenSettings {
    OpenSettings {
        resolve: Arc::new(|name, variant| {
            Ok(find(Some(name), variant, ResultKind::Pictures, &P::default())?.folder)
        }),
        resolve_file: Arc::new(|path| find_file(path, &P::default())),
        ..OpenSettings::new(options)
    }
}

/// A picture as a PNG file.
///
/// # Errors
/// A picture that cannot be encoded.
pub fn png(image: &GeneratedImage) -> Result<Vec<u8>> {
    Ok(brisk_media::encode_png(&image.picture, &[])?)
}
