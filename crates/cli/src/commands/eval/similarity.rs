//! `brisk eval similarity`: how much pictures and texts have to do with each other.

use std::path::PathBuf;

use brisk::Options;
use brisk_media::read_picture;
use brisk_pipelines::families::similarity::Scorer;
use clap::Args;
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::{models, output, progress, text};

/// Score texts for pictures by CLIP or a vision tower of VILA-U (zero-shot classification)
#[derive(Debug, Args)]
#[command(
    before_help = "A score is a hundred times the cosine of what both encoders make of picture and text. Of several texts\n\
    the best is what the picture shows most likely: brisk eval similarity a.jpg --text \"a cat\" --text \"a dog\""
)]
pub struct SimilarityArguments {
    /// Pictures: PNG, JPEG or WebP
    #[arg(value_name = "FILE", required = true)]
    pictures: Vec<PathBuf>,
    /// A text; given several times, several
    #[arg(long, value_name = "TEXT", required = true)]
    text: Vec<String>,
    /// Folder or hub id of transformers' CLIPModel, or the vision_tower/ of a training
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

pub fn run(arguments: &SimilarityArguments) -> Result {
    arguments.threads.apply()?;
    if arguments.text.iter().any(|text| text.trim().is_empty()) {
        return Err(Failure::usage("--text: is empty"));
    }
    let pictures = arguments
        .pictures
        .iter()
        .map(|path| Ok(read_picture(path)?));
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    let folder = models::open(Some(&arguments.model), None)?;
    let scorer = Scorer::open(&folder, &models::settings(Options::new()))?;
    let texts: Vec<&str> = arguments.text.iter().map(String::as_str).collect();
    let control = progress::control()?;
    let scores = scorer.scores(&pictures, &texts, &control)?;
    drop(control);
    if arguments.json {
        let rows = arguments.pictures.iter().zip(&scores);
        let rows: Vec<_> = rows
            .map(|(path, scores)| json!({"path": path.display().to_string(), "scores": scores}))
            .collect();
        return output::print_json(
            &json!({"model": folder.label(), "texts": texts, "pictures": rows}),
        );
    }
    let mut page = String::new();
    for (path, scores) in arguments.pictures.iter().zip(&scores) {
        let mut ranked: Vec<(&str, f32)> =
            texts.iter().copied().zip(scores.iter().copied()).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rows: Vec<Vec<String>> = ranked
            .into_iter()
            .map(|(words, score)| vec![format!("  {score:.2}"), words.to_owned()])
            .collect();
        page.push_str(&format!("{}\n{}", path.display(), text::table(&rows)));
    }
    output::print(page.trim_end())
}
