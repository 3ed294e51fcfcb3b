//! `brisk train checker`.

use std::path::PathBuf;

use brisk_train::data::scenes::Drawings;
use brisk_train::recipe::Recipe;
use brisk_train::train_checker;
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::Result;

/// Train the judge of pictures of scenes: which objects are there, where, in which colours
#[derive(Debug, Args)]
#[command(
    before_help = "A small convolutional network, trained on scenes that are composed as it goes, never on pictures that a\n\
    model drew. The report has its accuracy on fresh scenes of each kind, clean and degraded."
)]
pub struct CheckerArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scene-checker")]
    recipe: String,
    /// Folder with the npm packages in noto, fluent-emoji-flat and twemoji
    #[arg(long, value_name = "FOLDER")]
    npm: PathBuf,
    #[command(flatten)]
    run: RunArguments,
}

pub fn run(arguments: &CheckerArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Checker(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "checker")),
    };
    arguments.run.adjust(&mut recipe.training);
    let drawings = Drawings::open(&arguments.npm).map_err(brisk_train::Error::from)?;
    arguments.run.train("checker", |control| {
        train_checker(&recipe, &drawings, &arguments.run.output, control)
    })
}
