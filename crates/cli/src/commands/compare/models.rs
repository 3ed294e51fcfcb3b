//! Two models with the same prompts and noise: a quantized one beside the full one.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use brisk::options::Options;
use brisk::{BoxModel, Control, Event, ImageModel, ImageRequest, ResultKind, keys, registry};
use brisk_media::{Picture, contact_sheet, encode_png, psnr, ssim};
use brisk_nn::Activations;
use brisk_store::write_atomic;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::commands::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::progress::Stages;
use crate::{models, output, text};
use brisk_pipelines::machine;

/// Options for two models; they mean nothing for pictures.
#[derive(Debug, Args)]
#[command(next_help_heading = "Two models")]
pub struct ModelArguments {
    /// Prompts, one a line (default: a set for the model in the box)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Pictures, each with its own seed; prompts are repeated (default 64)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    images: Option<u16>,
    /// Denoising steps (default: the models')
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Side of the pictures (default: the models')
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// How inputs of 4-bit layers are rounded: 8 (default), 4, or full
    #[arg(long, value_enum, value_name = "BITS")]
    activations: Option<ActivationBits>,
    /// Linear layers of the second model's transformer, rounded to nearest while it is loaded: 8bit
    /// (W8A8) or 4bit
    #[arg(long, value_name = "KIND", value_parser = ["8bit", "4bit"])]
    quantize_transformer: Option<String>,
    /// PNG with the first pictures of both side by side
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Activation rounding by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationBits {
    /// 8 bits a value, a scale every 64.
    #[value(name = "8")]
    Eight,
    /// 4 bits, as the engine that these files were made for.
    #[value(name = "4")]
    Four,
    /// None.
    Full,
}

impl ActivationBits {
    /// As the option spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Eight => "8",
            Self::Four => "4",
            Self::Full => "full",
        }
    }
}

impl From<ActivationBits> for Activations {
    fn from(bits: ActivationBits) -> Self {
        match bits {
            ActivationBits::Eight => Self::Eight,
            ActivationBits::Four => Self::Four,
            ActivationBits::Full => Self::Full,
        }
    }
}

impl ModelArguments {
    /// The first option that was given, for messages.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("--prompts", self.prompts.is_some()),
            ("--images", self.images.is_some()),
            ("--steps", self.steps.is_some()),
            ("--size", self.size.is_some()),
            ("--activations", self.activations.is_some()),
            (
                "--quantize-transformer",
                self.quantize_transformer.is_some(),
            ),
            ("--sheet", self.sheet.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

/// Whether `name` is a model rather than a picture or a folder of them.
pub fn is_model(name: &Path) -> bool {
    name.join("model_index.json").is_file()
        || name.to_str().and_then(BoxModel::named).is_some() && !name.exists()
}

/// Prompts for the model in the box: none that calibrates it.
const BOX_PROMPTS: &str = include_str!("prompts.txt");

/// Seed of the first picture, beyond those of calibration pictures.
const FIRST_SEED: u64 = 1000;

/// What one model drew.
struct Drawn {
    pictures: Vec<Picture>,
    /// Latents after every step, one list a picture.
    latents: Vec<Vec<Vec<f32>>>,
    /// Seconds of denoising a picture.
    seconds: f64,
    /// Bytes of the transformer's weights as stored.
    bytes: u64,
    /// Memory that the process took at most while it drew.
    peak: Option<u64>,
}

/// Runs the command for two models.
pub fn run(a: &Path, b: &Path, arguments: &ModelArguments, as_json: bool) -> Result {
    arguments.threads.apply()?;
    let names = [a, b].map(|name| name.display().to_string());
    let prompts = match &arguments.prompts {
        Some(path) => crate::prompts::read(path)?,
        None => crate::prompts::lines(BOX_PROMPTS),
    };
    if let Some(path) = &arguments.sheet {
        output::expect_format("--sheet", path, Format::Png)?;
        output::check_writable(path)?;
    }
    let count = usize::from(arguments.images.unwrap_or(64));
    let mut stages = Stages::new();
    stages.stage("drawing", 2 * count as u64);
    let quantized = arguments.quantize_transformer.as_deref();
    let mut draw =
        |name: &str, how, before| draw(name, how, &prompts, count, arguments, &mut stages, before);
    let first = draw(&names[0], None, 0)?;
    let second = draw(&names[1], quantized, count)?;
    stages.finish();

    let pairs = || first.pictures.iter().zip(&second.pictures);
    let mut decibels = Vec::with_capacity(count);
    let mut likeness = Vec::with_capacity(count);
    for (a, b) in pairs() {
        if (a.width, a.height) != (b.width, b.height) {
            return Err(Failure::failed(format!(
                "{} draws {}x{}, {} {}x{}; give --size",
                names[0], a.width, a.height, names[1], b.width, b.height
            )));
        }
        decibels.push(psnr(a, b)?.min(100.0));
        likeness.push(ssim(a, b)?);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let steps = latent_errors(&first, &second);
    if let Some(path) = &arguments.sheet {
        let cells: Vec<_> = pairs()
            .zip(prompts.iter().cycle())
            .take(16)
            .flat_map(|((a, b), prompt)| [(a.clone(), prompt.clone()), (b.clone(), String::new())])
            .collect();
        write_atomic(path, &encode_png(&contact_sheet(&cells, 8)?, &[])?)?;
    }
    if as_json {
        let side = |name: &str, drawn: &Drawn| {
            json!({
                "model": name, "transformer_bytes": drawn.bytes, "peak_bytes": drawn.peak,
                "denoise_seconds_per_picture": drawn.seconds,
            })
        };
        return output::print_json(&json!({
            "a": side(&names[0], &first), "b": side(&names[1], &second), "images": count,
            "psnr_db": mean(&decibels), "psnr_db_each": decibels, "ssim": mean(&likeness),
            "latent_relative_error_per_step": steps,
        }));
    }
    let bytes = |count: Option<u64>| count.map_or("-".to_owned(), text::bytes);
    let mut rows = vec![vec![String::new(), names[0].clone(), names[1].clone()]];
    let mut row = |title: &str, value: &dyn Fn(&Drawn) -> String| {
        rows.push(vec![title.to_owned(), value(&first), value(&second)]);
    };
    row("transformer", &|d| text::bytes(d.bytes));
    row("memory at most", &|d| bytes(d.peak));
    row("denoising a picture", &|d| text::seconds(d.seconds));
    let per_step: Vec<String> = steps.iter().map(|e| format!("{:.1}", 100.0 * e)).collect();
    output::print(&format!(
        "{}\nPSNR           {:.2} dB (mean of {count}; least {:.2})\nSSIM           {:.4}\n\
         latents, error after each step in %: {}",
        text::table(&rows),
        mean(&decibels),
        decibels.iter().copied().fold(f64::INFINITY, f64::min),
        mean(&likeness),
        per_step.join(" ")
    ))
}

/// A model with its weights rounded, or what goes into its low-bit layers; the latter means nothing for a
/// model without such layers and is left out there.
fn open(
    name: &str,
    how: Option<&str>,
    bits: Option<ActivationBits>,
) -> Result<Box<dyn ImageModel>> {
    let found = models::find(Some(name), None, ResultKind::Pictures)?;
    let open = |extra: &[(&str, &str)]| -> Result<Box<dyn ImageModel>> {
        let mut options = models::kept_in_memory(&found.folder, Options::new());
        for (option, value) in extra {
            registry::give(&mut options, ResultKind::Pictures, option, value)?;
        }
        Ok(registry::open_image(
            &found.folder,
            &models::settings(options),
        )?)
    };
    let rounded = how.map(|how| ("quantize-transformer", how));
    let plain = open(rounded.as_slice())?;
    match bits {
        Some(bits) if plain.is_low_bit() => open(&[("activations", bits.name())]),
        _ => Ok(plain),
    }
}

fn draw(
    name: &str,
    how: Option<&str>,
    prompts: &[String],
    count: usize,
    arguments: &ModelArguments,
    stages: &mut Stages,
    before: usize,
) -> Result<Drawn> {
    machine::forget_peak_memory();
    let mut model = open(name, how, arguments.activations)?;
    let mut drawn = Drawn {
        pictures: Vec::with_capacity(count),
        latents: Vec::with_capacity(count),
        seconds: 0.0,
        bytes: model.denoiser_bytes(),
        peak: None,
    };
    for (index, prompt) in prompts.iter().cycle().take(count).enumerate() {
        let request = ImageRequest::new(prompt.clone())
            .with(&keys::SEED, FIRST_SEED + index as u64)
            .with_some(&keys::STEPS, arguments.steps)
            .with_some(&keys::WIDTH, arguments.size)
            .with_some(&keys::HEIGHT, arguments.size);
        let (sender, receiver) = mpsc::channel();
        let control = Control::new(move |event| drop(sender.send(event))).with_latents();
        let images = model.draw(&request, &control)?;
        drop(control);
        let mut steps = Vec::new();
        let mut denoise = 0.0;
        for event in receiver.try_iter() {
            match event {
                Event::Step { seconds, .. } => denoise = seconds,
                Event::Latents { latents, .. } => {
                    steps.push(latents.values);
                    drawn.seconds += denoise;
                }
                _ => {}
            }
        }
        drawn.latents.push(steps);
        drawn
            .pictures
            .extend(images.into_iter().next().map(|image| image.picture));
        stages.step((before + index + 1) as u64, 2 * count as u64);
    }
    drawn.seconds /= count as f64;
    drawn.peak = machine::peak_memory();
    Ok(drawn)
}

/// Relative L2 distance of the latents after each step, over all pictures.
fn latent_errors(a: &Drawn, b: &Drawn) -> Vec<f64> {
    let steps = a
        .latents
        .iter()
        .chain(&b.latents)
        .map(Vec::len)
        .min()
        .unwrap_or(0);
    (0..steps)
        .map(|step| {
            let (mut difference, mut size) = (0.0f64, 0.0f64);
            for (a, b) in a.latents.iter().zip(&b.latents) {
                for (a, b) in a[step].iter().zip(&b[step]) {
                    difference += f64::from(a - b).powi(2);
                    size += f64::from(*a).powi(2);
                }
            }
            (difference / size.max(f64::MIN_POSITIVE)).sqrt()
        })
        .collect()
}
