//! `brisk eval`: how good a trained model is.

mod alignment;
mod drift;
pub mod masks;
mod similarity;
mod text;
pub mod video;

use std::path::PathBuf;

use brisk::{Control, GeneratedImage, ImageRequest, Options, Work, keys, registry};
use brisk_media::{Picture, contact_sheet, encode_png};
use brisk_store::write_atomic;
use brisk_train::Selection;
use brisk_train::data::pictures::PictureData;
use brisk_train::eval::{
    Generated, ImageEvaluation, evaluate_image_model, load_autoencoder, mean_psnr, open_autoencoder,
};
use brisk_train::recipe::Recipe;
use clap::{Args, Subcommand};
use serde_json::json;

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::{models, output, progress, text as words};

/// Measure a trained model
#[derive(Debug, Subcommand)]
pub enum EvalVerb {
    Image(ImageEvalArguments),
    Text(text::TextEvalArguments),
    Alignment(alignment::AlignmentArguments),
    Masks(masks::MasksEvalArguments),
    Similarity(similarity::SimilarityArguments),
    Video(video::VideoEvalArguments),
    Drift(drift::DriftArguments),
}

/// Measure how often a text-to-image model draws what it was asked for
#[derive(Debug, Args)]
#[command(
    before_help = "A hit is an answer whose nearest training picture, in pixels or in the autoencoder's latent\n\
    space, bears the name that was asked for. Also measured: the autoencoder's PSNR on the held-out\n\
    pictures. The same seed asks for the same names."
)]
pub struct ImageEvalArguments {
    /// Folder, hub id or sana-emoji (default: the model in the box)
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Data set of `brisk train prepare-emoji`
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Names to ask for
    #[arg(long, value_name = "N", default_value_t = 200)]
    count: usize,
    /// Seed of the choice of names and of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Recipe the model was trained by, which chooses the pictures: a built-in name or a JSON file
    #[arg(long, value_name = "RECIPE", default_value = "emoji-image")]
    recipe: String,
    /// Denoising steps (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Guidance (default: the model's)
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    batch: u16,
    /// Also write all answers with their names as one PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print one JSON document, with every answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Runs the command.
pub fn run(verb: &EvalVerb) -> Result {
    match verb {
        EvalVerb::Image(arguments) => image(arguments),
        EvalVerb::Text(arguments) => text::run(arguments),
        EvalVerb::Alignment(arguments) => alignment::run(arguments),
        EvalVerb::Masks(arguments) => masks::run(arguments),
        EvalVerb::Similarity(arguments) => similarity::run(arguments),
        EvalVerb::Video(arguments) => video::run(arguments),
        EvalVerb::Drift(arguments) => drift::run(arguments),
    }
}

fn image(arguments: &ImageEvalArguments) -> Result {
    arguments.threads.apply()?;
    if arguments.count == 0 {
        return Err(Failure::usage("--count: 0 names measure nothing"));
    }
    let Recipe::Image(recipe) = Recipe::open(&arguments.recipe)? else {
        return Err(Failure::usage(format!(
            "--recipe {}: it trains no text-to-image model; give the recipe of the model",
            arguments.recipe
        )));
    };
    if let Some(sheet) = &arguments.sheet {
        output::expect_format("--sheet", sheet, Format::Png)?;
        output::check_writable(sheet)?;
    }
    let variant = arguments.variant.as_deref();
    let folder = models::open(arguments.model.as_deref(), variant)?;
    let data = PictureData::open(&arguments.data)?;
    let side = data.required_side()?;
    let autoencoder = load_autoencoder(&open_autoencoder(&folder, variant)?)?;
    let options = Options::new().with_some(&keys::VARIANT, arguments.variant.clone());
    let options = models::kept_in_memory(&folder, options);
    let mut model = registry::open_image(&folder, &models::settings(options))?;
    let control = progress::control()?;
    control.stage("autoencoder", Work::Run, 0);
    let held_out = Selection::default().of(&data, true);
    let held_out_psnr = if held_out.is_empty() {
        None
    } else {
        Some(mean_psnr(&autoencoder, &data, &held_out)?)
    };

    let evaluation = ImageEvaluation {
        data: &data,
        pictures: &recipe.pictures,
        autoencoder: &autoencoder,
        prompts: arguments.count,
        seed: arguments.seed,
        batch: arguments.batch.into(),
    };
    let mut cells: Vec<(Picture, String)> = Vec::new();
    let report = evaluate_image_model(&evaluation, &control, &mut |prompts, seed| {
        let request = ImageRequest {
            prompts: prompts.to_vec(),
            options: Options::new(),
        }
        .with(&keys::SEED, seed)
        .with(&keys::WIDTH, side)
        .with(&keys::HEIGHT, side)
        .with_some(&keys::STEPS, arguments.steps)
        .with_some(&keys::GUIDANCE, arguments.guidance);
        let quiet = Control::silent().with_cancel(control.cancel_flag());
        let images = model.draw(&request, &quiet)?;
        if arguments.sheet.is_some() {
            cells.extend(
                images
                    .iter()
                    .map(|image| (image.picture.clone(), image.prompt.clone())),
            );
        }
        Ok(images.into_iter().map(generated).collect())
    });
    drop(control);
    let report = report?;
    if let Some(path) = &arguments.sheet {
        let sheet = contact_sheet(&cells, 8)?;
        write_atomic(path, &encode_png(&sheet, &[])?)?;
    }
    if arguments.json {
        return output::print_json(&json!({
            "model": model.label().to_owned(),
            "held_out_psnr_db": held_out_psnr, "held_out_pictures": held_out.len(),
            "pixel_hit_rate": report.pixel_hit_rate, "latent_hit_rate": report.latent_hit_rate,
            "prompts": report.prompts, "candidates": report.candidates, "seed": report.seed,
            "steps": arguments.steps, "guidance": arguments.guidance, "results": report.results,
        }));
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::print(&words::table(&[
        row("model", model.label().to_owned()),
        row(
            "names asked for",
            format!("{} (seed {})", report.prompts, report.seed),
        ),
        row("training pictures searched", report.candidates.to_string()),
        row(
            "nearest in latents is right",
            percent(report.latent_hit_rate),
        ),
        row("nearest in pixels is right", percent(report.pixel_hit_rate)),
        row(
            "autoencoder, held-out PSNR",
            held_out_psnr.map_or("no held-out pictures".to_owned(), |psnr| {
                format!("{psnr:.2} dB ({} pictures)", held_out.len())
            }),
        ),
    ]))
}

/// The picture with its latent, channels last.
fn generated(image: GeneratedImage) -> Generated {
    let latent = image.latents.map(|latents| {
        let [_, channels, height, width] = latents.shape;
        let area = height * width;
        let planes = &latents.values;
        (0..area)
            .flat_map(|at| (0..channels).map(move |channel| planes[channel * area + at]))
            .collect()
    });
    (image.picture, latent)
}
