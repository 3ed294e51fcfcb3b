//! `brisk train prepare-pictures`.

use std::path::PathBuf;

use brisk_train::data::captioned::{SideFiles, prepare_captioned};
use brisk_train::data::emoji::PrepareOptions;
use clap::Args;
use serde_json::json;

use crate::failure::Result;
use crate::output::{self, Format};
use crate::progress;

/// Make a data set of your own pictures: files with a text of their name, or WebDataset shards
#[derive(Debug, Args)]
#[command(
    before_help = "photo.jpg is described by photo.txt: its first line is the caption, further lines are keywords. In shards\n\
    (.tar) 0001.jpg is described by 0001.txt or by \"prompt\" of 0001.json. Pictures (PNG, JPEG, WebP) are cut to the\n\
    largest square in their middle and resized; one in twenty is held out."
)]
pub struct PreparePicturesArguments {
    /// Folder of pictures and texts, or of shards
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Further captions stand in NAME<SUFFIX>.json beside pictures and shards; several are read
    #[arg(long, value_name = "SUFFIX")]
    captions: Vec<String>,
    /// Scores of captions stand in NAME<SUFFIX>.json: those with one are drawn by it; several are read
    #[arg(long, value_name = "SUFFIX")]
    scores: Vec<String>,
    /// Leave out pictures of which no caption has this score; needs --scores
    #[arg(
        long,
        value_name = "SCORE",
        requires = "scores",
        allow_negative_numbers = true
    )]
    least_score: Option<f64>,
    /// Side of the pictures in pixels; a recipe's picture_size
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    size: usize,
    /// File to write
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "pictures.safetensors"
    )]
    output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(super) fn run(arguments: &PreparePicturesArguments) -> Result {
    output::expect_format("--output", &arguments.output, Format::Safetensors)?;
    output::check_writable(&arguments.output)?;
    let mut options = PrepareOptions::new(&arguments.output);
    options.size = arguments.size;
    let folder = &arguments.folder;
    let side_files = SideFiles {
        captions: arguments.captions.clone(),
        scores: arguments.scores.clone(),
        least_score: arguments.least_score,
    };
    let report = prepare_captioned(folder, &side_files, &options, &progress::control()?)?;
    let path = arguments.output.display().to_string();
    if arguments.json {
        return output::print_json(
            &json!({"path": path, "pictures": report.pictures, "held_out": report.held_out,
                "low_scores": report.low_scores}),
        );
    }
    let left_out = match report.low_scores {
        0 => String::new(),
        count => format!("; {count} left out for their scores"),
    };
    output::print(&format!(
        "{path}: {} pictures of {} px, {} of them held out{left_out}",
        report.pictures, arguments.size, report.held_out
    ))
}
