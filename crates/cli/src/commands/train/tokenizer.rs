//! `brisk train tokenizer`.

use std::path::PathBuf;

use brisk_train::data::pictures::PictureData;
use brisk_train::recipe::Recipe;
use brisk_train::{open_tokenizer, open_tower, train_tokenizer, train_tower};
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::{Failure, Result};
use crate::models;

/// Train a tokenizer of pictures (HART), or a vision tower whose codes mean what captions say (VILA-U)
#[derive(Debug, Args)]
#[command(
    before_help = "A recipe is a JSON file with model, data and training settings; its kind decides:\n  \
    tokenizer  first everything learns from codes alone, then the decoder from codes and from latents as they are\n  \
    tower      first pictures and captions find each other, then codes are learned that draw and mean them"
)]
pub struct TokenizerArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "emoji-tokenizer")]
    recipe: String,
    /// Go on from this tokenizer's (or tower's) weights, of the recipe's shape
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Data set of `brisk train prepare-emoji`, `prepare-pictures` or `prepare-scenes`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

pub fn run(arguments: &TokenizerArguments) -> Result {
    arguments.run.threads.apply_to_training()?;
    let mut recipe = Recipe::open(&arguments.recipe)?;
    if recipe.kind() != "tokenizer" {
        return Err(wrong_kind(&arguments.recipe, &recipe, "tokenizer"));
    }
    arguments.run.adjust(recipe.training_mut());
    let data = PictureData::open_all(&arguments.data)?;
    let out = &arguments.run.output;
    let from = |result: &str| {
        let open = |name: &String| {
            let folder = models::open(Some(name), None)?;
            arguments.run.keeps(result, &folder)?;
            Ok::<_, Failure>(folder)
        };
        arguments.from.as_ref().map(open).transpose()
    };
    match &recipe {
        Recipe::Tokenizer(recipe) => {
            let start = from("tokenizer")?
                .as_ref()
                .map(open_tokenizer)
                .transpose()?;
            arguments.run.train("tokenizer", |control| {
                train_tokenizer(recipe, &data, start.as_ref(), out, control)
            })
        }
        Recipe::Tower(recipe) => {
            let start = from("vision_tower")?.as_ref().map(open_tower).transpose()?;
            arguments.run.train("vision_tower", |control| {
                train_tower(recipe, &data, start.as_ref(), out, control)
            })
        }
        other => Err(wrong_kind(&arguments.recipe, other, "tokenizer")),
    }
}
