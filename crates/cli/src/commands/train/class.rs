//! `brisk train class`.

use std::path::PathBuf;

use brisk_train::data::class_folders;
use brisk_train::eval::open_autoencoder;
use brisk_train::recipe::Recipe;
use brisk_train::train_class;
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::Result;
use crate::models;

/// Train a class-conditional model (UViT, DiT, USiT, SiT) on a trained autoencoder
#[derive(Debug, Args)]
#[command(
    before_help = "A recipe is a JSON file with network, data and training settings; what it predicts follows from the network's\n\
    train_scheduler. A class is a folder's name, or what the recipe's `classes` says of a data set: name, group, object\n\
    (of a scene) or coloured_object. Latents are encoded once and kept beside the checkpoints."
)]
pub struct ClassTrainingArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scenes-class-f32")]
    recipe: String,
    /// Autoencoder, or a model that has one
    #[arg(long, value_name = "MODEL")]
    vae: String,
    /// Variant of its weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Folder of pictures with a folder for each class, or a data set of `brisk train prepare-scenes`, `prepare-emoji` or
    /// `prepare-pictures`; several are joined
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// Runs the verb.
pub(super) fn run(arguments: &ClassTrainingArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Class(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "class")),
    };
    arguments.run.adjust(&mut recipe.training);
    let variant = arguments.variant.as_deref();
    let folder = models::open(Some(&arguments.vae), variant)?;
    arguments.run.keeps("model", &folder)?;
    let vae = open_autoencoder(&folder, variant)?;
    let out = &arguments.run.output;
    arguments.run.train("model", |control| {
        let size = recipe.picture_size(&vae.config)?;
        let data = class_folders::open_all(&arguments.data, size, control)?;
        train_class(&recipe, &data, &vae, out, control)
    })
}
