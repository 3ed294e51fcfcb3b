//! `brisk train tokenizer`.

use std::path::PathBuf;

use brisk_train::data::emoji::EmojiData;
use brisk_train::recipe::Recipe;
use brisk_train::{open_tokenizer, train_tokenizer};
use clap::Args;

use super::{RunArguments, wrong_kind};
use crate::failure::{Failure, Result};
use crate::models;

/// Train a tokenizer of pictures (HART)
#[derive(Debug, Args)]
#[command(
    before_help = "First everything learns from codes alone; then the decoder learns both from codes and from latents as they\n\
    are. A recipe is a JSON file with model, data and training settings."
)]
pub struct TokenizerArguments {
    /// Recipe: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "emoji-tokenizer")]
    recipe: String,
    /// Go on from this tokenizer's weights, of the recipe's shape
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
    let mut recipe = match Recipe::open(&arguments.recipe)? {
        Recipe::Tokenizer(recipe) => recipe,
        other => return Err(wrong_kind(&arguments.recipe, &other, "tokenizer")),
    };
    arguments.run.adjust(&mut recipe.training);
    let data = EmojiData::open_all(&arguments.data)?;
    let weights = |name: &String| {
        let folder = models::open(Some(name), None)?;
        arguments.run.keeps("tokenizer", &folder)?;
        Ok::<_, Failure>(open_tokenizer(&folder)?)
    };
    let start = arguments.from.as_ref().map(weights).transpose()?;
    arguments.run.train("tokenizer", |control| {
        let out = &arguments.run.output;
        train_tokenizer(&recipe, &data, start.as_ref(), out, control)
    })
}
