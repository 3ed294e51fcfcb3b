//! `brisk train video-autoencoder` and `brisk train video`.

use std::path::PathBuf;

use brisk_train::data::scenes::Drawings;
use brisk_train::recipe::Recipe;
use brisk_train::{VideoAutoencoderFiles, VideoStart, train_video, train_video_autoencoder};
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::{Failure, Result};
use crate::models;

/// Train an autoencoder of clips (HunyuanVideo) on emoji that move
#[derive(Debug, Args)]
#[command(
    before_help = "Clips are drawn as training goes: an emoji that jumps, moves, grows, shrinks or spins, with its caption.\n\
    One pair of object and motion in ten is held out. A recipe is a JSON file."
)]
pub struct VideoAutoencoderArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "motion-autoencoder")]
    recipe: String,
    /// Folder with the npm packages in noto, fluent-emoji-flat and twemoji
    #[arg(long, value_name = "FOLDER")]
    npm: PathBuf,
    /// Go on from this autoencoder's weights, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    #[command(flatten)]
    run: RunArguments,
}

/// Train a model of clips (HunyuanVideo, Magic 1-For-1) on emoji that move
#[derive(Debug, Args)]
#[command(
    before_help = "A transformer and its text encoders, by flow matching on the latents of a trained autoencoder of clips.\n\
    With --from a model of text alone it learns to begin with a frame. A recipe is a JSON file."
)]
pub struct VideoTrainingArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "motion-video")]
    recipe: String,
    /// Autoencoder of clips, or a model that has one; with --from, by default that model's
    #[arg(long, value_name = "MODEL", required_unless_present = "from")]
    vae: Option<String>,
    /// Go on from this model's weights and tokenizers
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Variant of the weights of both, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Folder with the npm packages in noto, fluent-emoji-flat and twemoji
    #[arg(long, value_name = "FOLDER")]
    npm: PathBuf,
    #[command(flatten)]
    run: RunArguments,
}

/// Runs `brisk train video`.
pub fn video(arguments: &VideoTrainingArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Video(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "video")),
    };
    arguments.run.adjust(&mut recipe.training);
    let variant = arguments.variant.as_deref();
    let open = |name: &str| models::open(Some(name), variant);
    let start = arguments.from.as_deref().map(open).transpose()?;
    let vae = match (&arguments.vae, &start) {
        (Some(name), _) => open(name)?,
        (None, Some(start)) => start.clone(),
        (None, None) => return Err(Failure::usage("--vae: is needed where there is no --from")),
    };
    for input in start.iter().chain([&vae]) {
        arguments.run.keeps("model", input)?;
    }
    let vae = VideoAutoencoderFiles::open(&vae, variant)?;
    let start = start.map(|folder| VideoStart::open(&folder, variant));
    let start = start.transpose()?;
    let drawings = Drawings::open(&arguments.npm).map_err(brisk_train::Error::from)?;
    arguments.run.train("model", |control| {
        let out = &arguments.run.output;
        train_video(&recipe, &drawings, &vae, start.as_ref(), out, control)
    })
}

/// Runs `brisk train video-autoencoder`.
pub fn autoencoder(arguments: &VideoAutoencoderArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::VideoAutoencoder(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "video-autoencoder")),
    };
    arguments.run.adjust(&mut recipe.training);
    let start = arguments.from.as_deref().map(|name| {
        let folder = models::open(Some(name), None)?;
        arguments.run.keeps("vae", &folder)?;
        Ok::<_, Failure>(VideoAutoencoderFiles::open(&folder, None)?)
    });
    let start = start.transpose()?;
    let drawings = Drawings::open(&arguments.npm).map_err(brisk_train::Error::from)?;
    arguments.run.train("vae", |control| {
        let out = &arguments.run.output;
        train_video_autoencoder(&recipe, &drawings, start.as_ref(), out, control)
    })
}
