//! The whole way from a prompt to the bytes of a PNG.

use std::path::PathBuf;
use std::time::Instant;

use brisk::{
    Control, Event, GeneratedImage, ImageRequest, OpenSettings, Options, ResultKind, keys, registry,
};
use brisk_models::Cost;
use brisk_pipelines::request::StageCost;
use clap::Args;
use serde_json::json;

use super::measure::measure;
use super::report::{Report, Stage};
use super::{ModelArguments, RunArguments};
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::{models, output};

/// Draw a picture, from the prompt to the bytes of a PNG
#[derive(Debug, Args)]
#[command(
    before_help = "Components stay in memory from run to run; the first run, which a warm-up takes, loads them."
)]
pub struct ImageArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// What the picture should show
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "a red heart on a white table"
    )]
    prompt: String,
    /// Text before the prompt: a file, or none (default: the model's)
    #[arg(long, value_name = "FILE|none")]
    instruction: Option<String>,
    /// Side of the picture in pixels, exactly (default: the model's)
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Linear layers of the text encoder: none, 8bit or 4bit
    #[arg(long, value_name = "KIND", default_value = "none")]
    quantize_text_encoder: String,
    /// Linear layers of the transformer: none, 8bit or 4bit
    #[arg(long, value_name = "KIND", default_value = "none")]
    quantize_transformer: String,
    /// Where the networks compute: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "PLACE", default_value = "cpu")]
    device: String,
    /// Denoising steps (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// File for the last run's PNG
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// Times the pipeline.
pub fn run(arguments: &ImageArguments) -> Result {
    arguments.run.threads.apply()?;
    if let Some(path) = &arguments.output {
        output::expect_format("--output", path, Format::Png)?;
        output::check_writable(path)?;
    }
    let folder = arguments.model.folder()?;
    let label = folder.label();
    let kind = ResultKind::Pictures;
    let options = Options::new().with_some(&keys::VARIANT, arguments.model.variant.clone());
    let mut options = models::kept_in_memory(&folder, options);
    for (name, value) in [
        ("quantize-text-encoder", &arguments.quantize_text_encoder),
        ("quantize-transformer", &arguments.quantize_transformer),
    ] {
        if value != "none" {
            registry::give(&mut options, kind, name, value)?;
        }
    }
    if arguments.device != "cpu" {
        registry::give(&mut options, kind, "device", &arguments.device)?;
    }
    let settings = OpenSettings {
        random: arguments.model.random(),
        ..models::settings(options)
    };
    let mut model = registry::open_image(&folder, &settings)?;
    let mut request = ImageRequest::new(&*arguments.prompt)
        .with(&keys::SEED, arguments.seed)
        .with_some(&keys::STEPS, arguments.steps)
        .with_some(&keys::WIDTH, arguments.size)
        .with_some(&keys::HEIGHT, arguments.size);
    if arguments.size.is_some() {
        // Sizes are meant as they are given.
        registry::give(&mut request.options, kind, "no-binning", "true")?;
    }
    if let Some(instruction) = &arguments.instruction {
        registry::give(&mut request.options, kind, "instruction", instruction)?;
    }
    let plan = model.plan(&request)?;
    let costs = model.cost(&plan)?;
    // As the command that draws.
    let control = Control::new(|event| {
        if matches!(event, Event::SaveMemory) {
            crate::allocator::release_memory();
        }
    });
    let measured = measure(&arguments.run, |laps| {
        let images = model.generate(&plan, &control)?;
        let Some(image) = images.first() else {
            return Err(Failure::failed("the request gave no picture"));
        };
        for (name, seconds) in parts(image) {
            laps.add(name, seconds);
        }
        let started = Instant::now();
        let png = brisk_media::encode_png(&image.picture, &[])?;
        laps.add("png", started.elapsed().as_secs_f64());
        Ok(png)
    })?;
    if let Some(path) = &arguments.output {
        brisk_store::write_atomic(path, &measured.result)?;
    }
    let sizes = [
        ("width", json!(plan.width)),
        ("height", json!(plan.height)),
        ("steps", json!(plan.known_steps())),
    ];
    Report {
        component: "image",
        model: Some(label),
        random: settings.random.is_some(),
        sizes: sizes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        stages: stages(measured.total, measured.parts, &costs),
    }
    .print(&arguments.run)
}

/// The stages that took time.
fn parts(image: &GeneratedImage) -> impl Iterator<Item = (&'static str, f64)> + '_ {
    image
        .seconds
        .iter()
        .copied()
        .filter(|(_, seconds)| *seconds > 0.0)
}

/// The whole and its parts; weights differ in size from part to part.
fn stages(total: Vec<f64>, parts: Vec<(String, Vec<f64>)>, costs: &[StageCost]) -> Vec<Stage> {
    let mut whole = Stage::new("image", total);
    let mut all = Vec::new();
    for (name, seconds) in parts {
        let stage = Stage::part(&name, seconds);
        let cost = costs.iter().find(|stage| stage.cost.name == name);
        let stage = match cost {
            Some(known) => stage.with_cost(&known.cost, known.weight_bytes),
            None => stage.with_cost(&Cost::default(), 0.0),
        };
        whole.flops += stage.flops;
        whole.bytes += stage.bytes;
        all.push(stage);
    }
    all.insert(0, whole);
    all
}
