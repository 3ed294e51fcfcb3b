//! `brisk train recogniser`.

use brisk_train::data::scene_text::Fonts;
use brisk_train::recipe::Recipe;
use brisk_train::train_recogniser;
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::Result;

/// Train a small CRNN, which reads words, on scenes of text
#[derive(Debug, Args)]
pub struct RecogniserArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scene-text-recogniser")]
    recipe: String,
    /// Go on from this model's weights, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    #[command(flatten)]
    run: RunArguments,
}

pub fn run(arguments: &RecogniserArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Recogniser(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "recogniser")),
    };
    arguments.run.adjust(&mut recipe.training);
    let start = arguments
        .run
        .start(arguments.from.as_deref(), &["recogniser"])?;
    let out = &arguments.run.output;
    arguments.run.train("model", |control| {
        train_recogniser(&recipe, &Fonts::built_in(), start.as_ref(), out, control)
    })
}
