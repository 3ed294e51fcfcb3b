//! `brisk prune`: a model without the blocks that change least.

use std::path::PathBuf;

use brisk::{BlockImportance, Control, Error, ImageRequest, Options, Work, keys, registry};
use brisk_train::{DepthSource, PruneReport, PruneTarget, prune};
use clap::Args;
use serde_json::json;

use super::ThreadArguments;
use super::grow::image_recipe;
use crate::failure::{Failure, Result};
use crate::{models, output, progress, text};

/// Prompts of a calibration that names none.
const PROMPTS: usize = 100;

/// Make a model shallower (SANA-1.5): leave out the blocks that change least of what passes through them
#[derive(Debug, Args)]
#[command(
    before_help = "Draws the calibration prompts and measures each block's importance: one less the mean cosine\n\
    between the tokens that it is given and those that it gives, over all steps. The result is a model's\n\
    folder with a pruning.json; about a hundred updates mend most of what was lost:\n\
    `brisk train image --from FOLDER --data FILE -o RUN --steps 100`."
)]
pub struct PruneArguments {
    /// Folder, hub id or the name of one in the box
    model: String,
    /// Folder to write
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Blocks that stay
    #[arg(long, value_name = "N")]
    blocks: Option<usize>,
    /// Share of the blocks that stays, such as 0.75
    #[arg(long, value_name = "SHARE", conflicts_with = "blocks")]
    keep: Option<f64>,
    /// Calibration prompts, one a line (default: a hundred of those that the model knows)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Steps of each calibration picture (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Side of the calibration pictures (default: the model's)
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Seed of the first of them; further ones follow
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

/// Runs the command.
pub fn run(arguments: &PruneArguments) -> Result {
    arguments.threads.apply()?;
    let target = match (arguments.blocks, arguments.keep) {
        (Some(blocks), _) => PruneTarget::Blocks(blocks),
        (None, Some(share)) => PruneTarget::Share(share),
        (None, None) => {
            return Err(Failure::usage(
                "--blocks or --keep: how much of the model should stay? Such as --blocks 40 or --keep 0.66",
            ));
        }
    };
    let recipe = image_recipe(arguments.recipe.as_deref())?;
    let variant = arguments.variant.as_deref();
    let folder = models::open(Some(&arguments.model), variant)?;
    let source = DepthSource::open(&folder, variant)?;
    source.check_pruning(target, &arguments.output)?;
    let options = Options::new().with_some(&keys::VARIANT, arguments.variant.clone());
    let options = models::kept_in_memory(&folder, options);
    let mut model = registry::open_image(&folder, &models::settings(options))?;
    let prompts = match &arguments.prompts {
        Some(path) => crate::prompts::read(path)?,
        None => spread(model.known_prompts().map_or(&[], |known| known.prompts())),
    };
    if prompts.is_empty() {
        return Err(Failure::usage(
            "--prompts: which captions should the model be watched with? Give a file with one a line, about a \
             hundred of what it usually draws",
        ));
    }
    let importance = BlockImportance::new();
    if !model.watch_blocks(importance.clone()) {
        return Err(Failure::usage(format!(
            "{}: models of this family have no blocks that can be left out",
            model.label()
        )));
    }
    let control = progress::control()?;
    control.stage("calibration", Work::Run, prompts.len());
    let mut clock = brisk_pipelines::events::StepClock::new(prompts.len());
    for (index, prompt) in prompts.iter().enumerate() {
        let request = ImageRequest::new(prompt.clone())
            .with(&keys::SEED, arguments.seed.wrapping_add(index as u64))
            .with_some(&keys::STEPS, arguments.steps)
            .with_some(&keys::WIDTH, arguments.size)
            .with_some(&keys::HEIGHT, arguments.size);
        let quiet = Control::silent().with_cancel(control.cancel_flag());
        match model.draw(&request, &quiet) {
            Err(Error::Cancelled) => {
                return Err(Failure::stopped("cancelled; nothing was written"));
            }
            other => other?,
        };
        clock.step(&control);
    }
    drop(control);
    drop(model);
    let importance = BlockImportance::of_blocks(&importance);
    let (recipe, out) = (recipe.as_ref(), &arguments.output);
    let report = prune(&source, target, &importance, prompts.len(), recipe, out)?;
    let written = out.display().to_string();
    if arguments.json {
        return output::print_json(&json!({"model": written, "report": report}));
    }
    output::print(&table(&report))?;
    output::note(&format!(
        "{} of {} blocks left; {} parameters before, {} after",
        report.layers,
        report.source_layers,
        text::count(report.source_parameters),
        text::count(report.parameters)
    ));
    output::print(&written)
}

/// Prompts from all over a list, in its order.
fn spread(known: &[String]) -> Vec<String> {
    let count = known.len().min(PROMPTS);
    (0..count)
        .map(|index| known[index * known.len() / count].clone())
        .collect()
}

fn table(report: &PruneReport) -> String {
    let mut rows = vec![
        ["block", "importance", "in the result"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for block in &report.blocks {
        rows.push(vec![
            block.block.to_string(),
            format!("{:.5}", block.importance),
            block
                .kept_as
                .map_or("left out".to_owned(), |place| place.to_string()),
        ]);
    }
    text::table(&rows)
}
