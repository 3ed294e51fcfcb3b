//! `brisk train masks`.

use brisk_train::data::scene_text::Fonts;
use brisk_train::recipe::Recipe;
use brisk_train::train_masks;
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::Result;

/// Train a small Segment Anything on scenes of text, which are composed as it goes
#[derive(Debug, Args)]
pub struct MasksTrainingArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scene-text-masks")]
    recipe: String,
    /// Go on from this model's weights, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    #[command(flatten)]
    run: RunArguments,
}

pub fn run(arguments: &MasksTrainingArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Masks(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "masks")),
    };
    arguments.run.adjust(&mut recipe.training);
    let start = arguments.run.start(arguments.from.as_deref(), &[])?;
    let out = &arguments.run.output;
    arguments.run.train("model", |control| {
        train_masks(&recipe, &Fonts::built_in(), start.as_ref(), out, control)
    })
}
