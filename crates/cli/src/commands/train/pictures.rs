//! `brisk train prepare-pictures`.

use std::path::PathBuf;

use brisk_pipelines::families::similarity::Scorer;
use brisk_pipelines::options::Options;
use brisk_train::data::captioned::{CaptionedOptions, Cut, SideFiles, prepare_captioned};
use brisk_train::data::pictures::PrepareOptions;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::{models, progress};

/// Make a data set of your own pictures: files with a text of their name, or WebDataset shards
#[derive(Debug, Args)]
#[command(
    before_help = "photo.jpg is described by photo.txt: its first line is the caption, further lines are keywords. In shards\n\
    (.tar) 0001.jpg is described by 0001.txt or by \"prompt\" of 0001.json. Pictures (PNG, JPEG, WebP) are cut to the\n\
    largest square in their middle, or to the nearest of several shapes, and resized; one in twenty is held out."
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
    /// Score every caption by this model: CLIP or a vision tower, by folder or hub id; a hundred times the cosine
    #[arg(long, value_name = "MODEL", conflicts_with = "scores")]
    score_with: Option<String>,
    /// Leave out pictures of which no caption has this score; needs --scores or --score-with
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    least_score: Option<f64>,
    /// Side of the pictures in pixels; a recipe's picture_size
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    size: usize,
    /// Cut pictures to the nearest shape of about SIZE x SIZE pixels, for `brisk train image` and `distill sprint`
    #[arg(long)]
    aspect_buckets: bool,
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
    if arguments.least_score.is_some()
        && arguments.score_with.is_none()
        && arguments.scores.is_empty()
    {
        return Err(Failure::usage(
            "--least-score: there are no scores; give --scores SUFFIX or --score-with MODEL",
        ));
    }
    let mut options = PrepareOptions::new(&arguments.output);
    options.size = arguments.size;
    let folder = &arguments.folder;
    let side_files = SideFiles {
        captions: arguments.captions.clone(),
        scores: arguments.scores.clone(),
        least_score: arguments.least_score,
    };
    let cut = match arguments.aspect_buckets {
        true => Cut::AspectBuckets,
        false => Cut::Square,
    };
    let control = progress::control()?;
    let scorer = match &arguments.score_with {
        Some(name) => {
            let model = models::open(Some(name), None).map_err(|error| error.at("--score-with"))?;
            let opened = Scorer::open(&model, &models::settings(Options::new()));
            Some(opened.map_err(|error| Failure::from(error).at("--score-with"))?)
        }
        None => None,
    };
    let captioned = CaptionedOptions {
        side_files,
        cut,
        scorer: scorer.as_ref(),
    };
    let report = prepare_captioned(folder, &captioned, &options, &control)?;
    let shapes = report.shapes.iter();
    let path = arguments.output.display().to_string();
    if arguments.json {
        let shapes: Map<String, Value> = shapes
            .map(|(shape, count)| (shape.to_string(), json!(count)))
            .collect();
        return output::print_json(
            &json!({"path": path, "pictures": report.pictures, "held_out": report.held_out,
                "low_scores": report.low_scores, "shapes": shapes}),
        );
    }
    let shapes = match arguments.aspect_buckets {
        true => {
            let told = shapes.map(|(shape, count)| format!("\n  {shape}: {count}"));
            format!(" (height x width: pictures){}", told.collect::<String>())
        }
        false => String::new(),
    };
    let left_out = match report.low_scores {
        0 => String::new(),
        count => format!("; {count} left out for their scores"),
    };
    output::print(&format!(
        "{path}: {} pictures of {} px, {} of them held out{left_out}{shapes}",
        report.pictures, arguments.size, report.held_out
    ))
}
