//! `brisk quantize`: a transformer with 4-bit weights.

use std::path::PathBuf;
use std::sync::Arc;

use brisk::{Error, Options, ResultKind, keys, registry};
use brisk_media::{Picture, read_picture};
use brisk_pipelines::EvaluationClips;
use brisk_pipelines::quantize::{Calibration, QuantizeRequest, Quantized, quantize};
use brisk_quant::svd::Solver;
use brisk_quant::{AwqSettings, Method, Settings};
use brisk_store::ModelFolder;
use clap::{Args, ValueEnum};

use super::ThreadArguments;
use crate::failure::{Failure, Result};
use crate::{models, output, progress, text};

/// Make a model's transformer four times smaller: 4-bit weights beside a small 16-bit branch (SVDQuant)
#[derive(Debug, Args)]
#[command(
    before_help = "Draws the calibration prompts in full precision, then quantizes one layer after another.\n\
    A run that was stopped goes on where it was when it is started again with the same options.\n\
    The result is a model folder; `brisk image --model FOLDER` (or `brisk video`) draws with it, and `brisk compare`\n\
    measures it. An output that ends in .safetensors is the transformer alone, in the layout\n\
    of nunchaku's files, for --transformer."
)]
pub struct QuantizeArguments {
    /// Folder, hub id or the name of one in the box
    model: String,
    /// Folder (or .safetensors file) to write
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// How: rtn, smooth, svd, svdquant or svdquant+gptq
    #[arg(long, value_name = "NAME", default_value = "svdquant", value_parser = method)]
    method: Method,
    /// Width of the branch, a multiple of 16
    #[arg(long, value_name = "N", default_value_t = 32)]
    rank: usize,
    /// Steps of the smoothing search (2N - 1 candidates)
    #[arg(long, value_name = "N", default_value_t = 10)]
    grids: usize,
    /// Most iterations of the branch's refinement
    #[arg(long, value_name = "N", default_value_t = 100)]
    iterations: usize,
    /// How singular vectors are found
    #[arg(long, value_enum, default_value_t = SolverName::Randomised)]
    svd: SolverName,
    /// Activations that errors are measured with: 4 or 8 bits
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=8))]
    activations: u8,
    /// Also 4-bit weights for the layers that keep full activations (caption and time)
    #[arg(long)]
    extra: bool,
    /// Also 4-bit weights for the text encoder (AWQ)
    #[arg(long)]
    text_encoder: bool,
    /// Calibration prompts, one a line (default: a set for the model in the box, or captions of the clips that a model
    /// brings along)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// First frame of calibration clips; several are taken in turn (default: those that the model brings along)
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Rows that are kept of every layer's input
    #[arg(long, value_name = "N", default_value_t = 2048)]
    rows: usize,
    /// Steps of each calibration picture (default: the model's)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Side of the calibration pictures (default: the model's)
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SolverName {
    Randomised,
    Exact,
}

fn method(name: &str) -> Result<Method, String> {
    let found = Method::ALL.into_iter().find(|method| method.name() == name);
    let names = Method::ALL.map(Method::name).join(", ");
    found.ok_or_else(|| format!("expected one of {names}"))
}

/// Clips that calibrate, of those that a model brings along.
const KNOWN: usize = 32;
/// The calibration prompts of the model in the box.
const BOX_PROMPTS: &str = include_str!("quantize/prompts.txt");

/// Runs the command.
pub fn run(arguments: &QuantizeArguments) -> Result {
    arguments.threads.apply()?;
    let folder = models::open(Some(&arguments.model), arguments.variant.as_deref())?;
    let request = arguments.request(&folder)?;
    request.check(&folder, arguments.prompts.as_slice())?;
    if request.is_single_file() {
        output::check_writable(&request.output)?;
    }
    let options = Options::new().with_some(&keys::VARIANT, arguments.variant.clone());
    let settings = models::settings(options);
    let (mut drawer, mut filmer) = (None, None);
    let quantizable = match makes_clips(&folder) {
        false => drawer
            .insert(registry::open_image(&folder, &settings)?)
            .quantizable(),
        true => filmer
            .insert(registry::open_video(&folder, &settings)?)
            .quantizable(),
    };
    let Some(quantizable) = quantizable else {
        return Err(Failure::usage(format!(
            "{}: models of this family have no layout of 4-bit files",
            folder.label()
        )));
    };
    let control = progress::control()?;
    let done = quantize(&folder, quantizable, &request, &control);
    drop(control);
    let done = match done {
        Err(Error::Cancelled) => {
            return Err(Failure::stopped(format!(
                "stopped; the same command goes on with what is in {}",
                request.work_folder().display()
            )));
        }
        other => other?,
    };
    if arguments.json {
        return output::print_json(&done.document(&request));
    }
    output::print(&table(&done))?;
    output::note(&summary(&done));
    output::print(&request.output.display().to_string())
}

/// Whether a folder's model makes clips alone.
fn makes_clips(folder: &ModelFolder) -> bool {
    let family = registry::family_of(folder, &Options::new());
    family.is_some_and(|family| family.results() == [ResultKind::Clips])
}

fn summary(done: &Quantized) -> String {
    let sizes = done.components.iter().map(|component| {
        let [before, after] = component.bytes.map(text::bytes);
        format!("{}: {before} to {after}", component.name.replace('_', " "))
    });
    let sizes: Vec<String> = sizes.collect();
    format!("{}, in {}", sizes.join(", "), text::seconds(done.seconds))
}

fn table(done: &Quantized) -> String {
    let names = ["layer", "output error", "alpha", "beta", "iterations"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for layer in done
        .components
        .iter()
        .flat_map(|component| component.layers())
    {
        let (beta, iterations) = match layer.branch {
            Some((beta, iterations)) => (format!("{beta:.2}"), iterations.to_string()),
            None => (String::new(), String::new()),
        };
        rows.push(vec![
            layer.name.clone(),
            format!("{:.2} %", 100.0 * layer.error),
            format!("{:.2}", layer.alpha),
            beta,
            iterations,
        ]);
    }
    text::table(&rows)
}

impl QuantizeArguments {
    fn settings(&self) -> Result<Settings> {
        if self.rank == 0 || !self.rank.is_multiple_of(16) || self.rank > 1024 {
            return Err(Failure::usage(format!(
                "--rank {}: expected a multiple of 16, up to 1024",
                self.rank
            )));
        }
        let usual = [
            ("--grids", self.grids, 1, 1000),
            ("--iterations", self.iterations, 1, 10_000),
            ("--rows", self.rows, 16, 1 << 20),
        ];
        for (flag, value, low, high) in usual {
            if !(low..=high).contains(&value) {
                return Err(Failure::usage(format!(
                    "{flag} {value}: expected {low} to {high}"
                )));
            }
        }
        let activation_most = match self.activations {
            4 => 7.0,
            8 => 127.0,
            bits => {
                return Err(Failure::usage(format!(
                    "--activations {bits}: expected 4 or 8"
                )));
            }
        };
        Ok(Settings {
            rank: self.rank,
            grids: self.grids,
            iterations: self.iterations,
            solver: match self.svd {
                SolverName::Randomised => Solver::Randomised,
                SolverName::Exact => Solver::Exact,
            },
            activation_most,
            ..Settings::new(self.method)
        })
    }

    fn request(&self, folder: &ModelFolder) -> Result<QuantizeRequest> {
        let known = EvaluationClips::read(folder)?.unwrap_or_default();
        Ok(QuantizeRequest {
            model: self.model.clone(),
            variant: self.variant.clone(),
            output: self.output.clone(),
            settings: self.settings()?,
            weights_alone: self.extra,
            awq: self.text_encoder.then(AwqSettings::default),
            calibration: Calibration {
                prompts: self.prompts(&known)?,
                rows: self.rows,
                steps: self.steps,
                size: self.size,
                pictures: self.pictures(folder, &known)?,
            },
        })
    }

    /// The first frames of calibration clips.
    fn pictures(&self, folder: &ModelFolder, known: &EvaluationClips) -> Result<Vec<Arc<Picture>>> {
        if !self.image.is_empty() && !makes_clips(folder) {
            return Err(Failure::usage(format!(
                "--image: first frames are of clips; {} draws pictures",
                folder.label()
            )));
        }
        if self.image.is_empty() {
            let firsts = known.0.iter().filter_map(|clip| clip.frames.first());
            return Ok(firsts.take(KNOWN).cloned().map(Arc::new).collect());
        }
        let read = self
            .image
            .iter()
            .map(|path| Ok(Arc::new(read_picture(path)?)));
        read.collect()
    }

    fn prompts(&self, known: &EvaluationClips) -> Result<Vec<String>> {
        match &self.prompts {
            Some(path) => crate::prompts::read(path),
            None if !known.0.is_empty() => {
                let captions = known.0.iter().map(|clip| clip.caption.clone());
                Ok(captions.take(KNOWN).collect())
            }
            None if brisk::BoxModel::named(&self.model).is_some() => {
                Ok(crate::prompts::lines(BOX_PROMPTS))
            }
            None => Err(Failure::usage(
                "--prompts: which captions should calibrate the model? Give a file with one a line, \
                 about 32 to 128 of what it usually draws",
            )),
        }
    }
}
