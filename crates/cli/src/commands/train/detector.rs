//! `brisk train detector`.

use brisk_train::data::scene_text::Fonts;
use brisk_train::recipe::Recipe;
use brisk_train::train_detector;
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::Result;

/// Train a small CRAFT, which finds characters, on scenes of text
#[derive(Debug, Args)]
pub struct DetectorArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "scene-text-detector")]
    recipe: String,
    /// Go on from this model's weights, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    #[command(flatten)]
    run: RunArguments,
}

pub fn run(arguments: &DetectorArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Detector(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "detector")),
    };
    arguments.run.adjust(&mut recipe.training);
    let start = arguments
        .run
        .start(arguments.from.as_deref(), &["detector"])?;
    let out = &arguments.run.output;
    arguments.run.train("model", |control| {
        train_detector(&recipe, &Fonts::built_in(), start.as_ref(), out, control)
    })
}
