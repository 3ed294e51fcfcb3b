//! `brisk grow`: a deeper model made of a trained one.

use std::path::PathBuf;

use brisk_train::recipe::{ImageRecipe, Recipe};
use brisk_train::{DepthSource, GrowOptions, Strategy, grow};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::{models, output, text};

/// Make a deeper model of a trained one (SANA-1.5): new blocks that change nothing until they are trained
#[derive(Debug, Args)]
#[command(
    before_help = "Strategies: constant (new blocks are the identity; the paper's), random, cyclic, block-expand,\n\
    progressive, interpolation. With constant the last two blocks are left out first, as in the paper.\n\
    The result is a model's folder; `brisk image --model FOLDER` draws with it, and it is trained on by\n\
    `brisk train image --from FOLDER --data FILE -o RUN`, by the recipe.json in it."
)]
pub struct GrowArguments {
    /// Folder, hub id or the name of one in the box
    model: String,
    /// Folder to write
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Blocks of the result
    #[arg(long, value_name = "N")]
    layers: usize,
    /// How new blocks come about
    #[arg(long, value_name = "NAME", default_value = "constant", hide_possible_values = true, value_parser = strategies())]
    strategy: String,
    /// Last blocks of the model to leave out first (default: 2 with constant, else 0)
    #[arg(long, value_name = "N")]
    drop: Option<usize>,
    /// Copies (cyclic, block-expand) add nothing until they are trained
    #[arg(long)]
    zero_gate: bool,
    /// Deviation of the weights that end a new block's branches (constant)
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    projection_scale: f32,
    /// Deviation of its other weights (constant)
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.02,
        allow_negative_numbers = true
    )]
    other_scale: f32,
    /// Add norms of queries and keys where the model has none; they change what it draws
    #[arg(long)]
    qk_norm: bool,
    /// Seed of the new weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Recipe to train it on by, to which its shape is given: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<String>,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

fn strategies() -> PossibleValuesParser {
    PossibleValuesParser::new(Strategy::ALL.map(Strategy::name))
}

/// A recipe of a text-to-image model.
pub(super) fn image_recipe(name: Option<&str>) -> Result<Option<ImageRecipe>> {
    match name.map(Recipe::open).transpose()? {
        None => Ok(None),
        Some(Recipe::Image(recipe)) => Ok(Some(recipe)),
        Some(other) => Err(Failure::usage(format!(
            "--recipe: it is for `brisk train {}`, expected one of a model that denoises latents",
            other.kind()
        ))),
    }
}

/// Runs the command.
pub fn run(arguments: &GrowArguments) -> Result {
    arguments.threads.apply()?;
    let recipe = image_recipe(arguments.recipe.as_deref())?;
    let variant = arguments.variant.as_deref();
    let folder = models::open(Some(&arguments.model), variant)?;
    let source = DepthSource::open(&folder, variant)?;
    let strategy = Strategy::ALL
        .into_iter()
        .find(|strategy| strategy.name() == arguments.strategy);
    let options = GrowOptions {
        drop: arguments.drop,
        projection_scale: arguments.projection_scale,
        other_scale: arguments.other_scale,
        zero_gate: arguments.zero_gate,
        qk_norm: arguments.qk_norm,
        seed: arguments.seed,
        ..GrowOptions::new(arguments.layers, strategy.unwrap_or(Strategy::Constant))
    };
    let report = grow(&source, &options, recipe.as_ref(), &arguments.output)?;
    let written = arguments.output.display().to_string();
    if arguments.json {
        return output::print_json(&json!({"model": written, "report": report}));
    }
    output::note(&format!(
        "{} of {} blocks kept, {} in the result; {} parameters before, {} after",
        report.kept_layers,
        report.source_layers,
        report.layers,
        text::count(report.source_parameters),
        text::count(report.parameters)
    ));
    output::print(&written)
}
