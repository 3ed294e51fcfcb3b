//! `brisk train prepare-scenes`.

use std::path::PathBuf;

use brisk_train::data::scenes::{SceneOptions, prepare_scenes};
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::Result;
use crate::output::Format;
use crate::{output, progress};

/// Compose pictures of emoji, with captions and what each shows
#[derive(Debug, Args)]
#[command(
    before_help = "Forty objects, eight colours, seven places, six kinds of captions: one object, two, one to four alike, a\n\
    colour, a position, two colours. One combination in ten is held out, and with it one scene in twenty.\n\
    Needs all three sets of drawings: @iconify-json/noto, fluent-emoji-flat and twemoji."
)]
pub struct ScenesArguments {
    /// Folder with the packages in noto, fluent-emoji-flat and twemoji
    #[arg(long, value_name = "FOLDER")]
    npm: PathBuf,
    /// Scenes to draw
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    count: usize,
    /// Seed of the lot
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Side of the pictures in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    size: usize,
    /// File to write; beside it FILE.truth.jsonl, a line a picture, and FILE.png, a sheet
    #[arg(short, long, value_name = "FILE", default_value = "scenes.safetensors")]
    output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &ScenesArguments) -> Result {
    arguments.threads.apply()?;
    output::expect_format("--output", &arguments.output, Format::Safetensors)?;
    output::check_writable(&arguments.output)?;
    let options = SceneOptions {
        count: arguments.count,
        seed: arguments.seed,
        size: arguments.size,
        out: arguments.output.clone(),
    };
    let report = prepare_scenes(&arguments.npm, &options, &progress::control()?)?;
    let path = arguments.output.display().to_string();
    if arguments.json {
        let mut document = json!(report);
        document["path"] = path.into();
        return output::print_json(&document);
    }
    output::print(&format!(
        "{path}: {} scenes of {} px, {} of them held out; {} says what each shows, {} shows some",
        report.pictures,
        arguments.size,
        report.held_out,
        report.truth.display(),
        report.sheet.display()
    ))
}
