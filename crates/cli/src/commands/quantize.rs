//! `brisk quantize`: a transformer with 4-bit weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brisk_pipelines::sana::quantise::text_encoder::{
    BlockReport, InputReport, TextEncoderJob, text_encoder_inputs,
};
use brisk_pipelines::sana::quantise::{Collector, Job, PartReport, transformer_inputs};
use brisk_pipelines::sana::{LoadOptions, SanaPipeline};
use brisk_pipelines::{Control, Event, ImageRequest};
use brisk_quant::svd::Solver;
use brisk_quant::{AwqSettings, Method, Settings};
use brisk_store::{
    Limit, ModelFolder, SafetensorsFile, TensorSource, check_output, read_text, write_atomic,
    write_atomic_with,
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{ThreadArguments, stop_on_interrupt};
use crate::failure::{Failure, Result};
use crate::progress::Stages;
use crate::{box_model, models, output, text};

/// Make a model's transformer four times smaller: 4-bit weights beside a small 16-bit branch (SVDQuant)
#[derive(Debug, Args)]
#[command(
    before_help = "Draws the calibration prompts in full precision, then quantises one layer after another.\n\
    A run that was stopped goes on where it was when it is started again with the same options.\n\
    The result is a model folder; `brisk image --model FOLDER` draws with it, and `brisk compare`\n\
    measures it. An output that ends in .safetensors is the transformer alone, in the layout\n\
    of nunchaku's files, for --transformer."
)]
pub struct QuantizeArguments {
    /// Folder, hub id or sana-emoji, the one in the box
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
    /// Calibration prompts, one a line (default: a set for the model in the box)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
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

/// The calibration prompts of the model in the box.
const BOX_PROMPTS: &str = include_str!("quantize/prompts.txt");

/// Prompts, one a line; empty lines are left out.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let text =
        read_text(path, Limit::TEXT).map_err(|error| Failure::from(error).at("--prompts"))?;
    let prompts = lines(&text);
    if prompts.is_empty() {
        return Err(Failure::usage(format!(
            "--prompts: {} has no lines",
            path.display()
        )));
    }
    Ok(prompts)
}

fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// Runs the command.
pub fn run(arguments: &QuantizeArguments) -> Result {
    arguments.threads.apply()?;
    let started = Instant::now();
    let settings = arguments.settings()?;
    let folder = models::open(Some(&arguments.model), arguments.variant.as_deref())?;
    arguments.check_places(&folder)?;
    let prompts = arguments.prompts()?;
    let single = arguments.single_file();
    if single && arguments.text_encoder {
        return Err(Failure::usage(
            "--text-encoder: a .safetensors output is the transformer alone; give a folder",
        ));
    }
    let work = arguments.work_folder();
    if single {
        output::check_writable(&arguments.output)?;
    }
    let options = LoadOptions {
        variant: arguments.variant.clone(),
        ..LoadOptions::default()
    };
    let mut pipeline = SanaPipeline::load(folder.clone(), &options)?;
    let source = full(pipeline.transformer_source(), arguments, "transformer")?;
    let text_source = match arguments.text_encoder {
        true => Some(full(pipeline.text_source(), arguments, "text encoder")?),
        false => None,
    };
    make_folder(&work)?;
    remember(&work, arguments, &prompts)?;
    let stop = stop_on_interrupt()?;
    let calibration = work.join("calibration.safetensors");
    let text_calibration = work.join("calibration-text.safetensors");
    let text_missing = text_source.is_some() && !text_calibration.is_file();
    if !calibration.is_file() || text_missing {
        let inputs = transformer_inputs(pipeline.transformer_config());
        let collector = Collector::new(inputs, arguments.rows);
        pipeline.watch_transformer(collector.watcher());
        let mut text_collector = None;
        if let Some(source) = &text_source {
            let inputs = text_encoder_inputs(pipeline.text_config(), &**source);
            let collector = Collector::new(inputs, arguments.rows);
            pipeline.watch_text_encoder(collector.watcher());
            text_collector = Some(collector);
        }
        draw(&mut pipeline, arguments, &prompts, &stop)?;
        collector.save(&calibration)?;
        if let Some(collector) = text_collector {
            collector.save(&text_calibration)?;
        }
    }
    let config = pipeline.transformer_config().clone();
    let text_config = pipeline.text_config().clone();
    pipeline.release();
    let calibration = SafetensorsFile::open(&calibration)?;
    let job = Job {
        config: &config,
        source: &*source,
        calibration: &calibration,
        work: &work,
        settings: &settings,
        extra: arguments.extra,
    };
    let reports = quantise(&job, &stop)?;
    let json = folder.read_json("transformer/config.json")?;
    let target = if single {
        arguments.output.clone()
    } else {
        copy_rest(&folder, &arguments.output, arguments.text_encoder)?;
        let transformer = arguments.output.join("transformer");
        make_folder(&transformer)?;
        write_atomic(
            &transformer.join("config.json"),
            format!("{json:#}\n").as_bytes(),
        )?;
        transformer.join("diffusion_pytorch_model.safetensors")
    };
    job.assemble(&json, &target)?;
    let text = match &text_source {
        None => None,
        Some(source) => {
            let calibration = SafetensorsFile::open(&text_calibration)?;
            let job = TextEncoderJob {
                config: &text_config,
                source: &**source,
                calibration: &calibration,
                work: &work,
                settings: AwqSettings::default(),
            };
            let blocks = quantise_text_encoder(&job, &stop)?;
            let target = arguments.output.join("text_encoder");
            make_folder(&target)?;
            job.assemble(folder.read_json("text_encoder/config.json")?, &target)?;
            Some(TextDone {
                blocks,
                bytes: sizes(&**source, &target.join("model.safetensors")),
            })
        }
    };
    let done = Done {
        layers: reports,
        bytes: sizes(&*source, &target),
        text,
        seconds: started.elapsed().as_secs_f64(),
    };
    let report = document(arguments, &done);
    if !single {
        let path = arguments.output.join("transformer/quantization.json");
        write_atomic(&path, format!("{report:#}\n").as_bytes())?;
    }
    drop(calibration);
    // Everything in it is in the result now.
    let _ = std::fs::remove_dir_all(&work);
    if arguments.json {
        return output::print_json(&report);
    }
    output::print(&table(&done))?;
    output::note(&done.summary());
    output::print(&arguments.output.display().to_string())
}

/// What came out.
struct Done {
    seconds: f64,
    layers: Vec<PartReport>,
    /// Of the transformer before and after.
    bytes: [u64; 2],
    text: Option<TextDone>,
}

struct TextDone {
    blocks: Vec<BlockReport>,
    bytes: [u64; 2],
}

impl Done {
    fn summary(&self) -> String {
        let sizes = |[before, after]: [u64; 2]| {
            format!("{} to {}", text::bytes(before), text::bytes(after))
        };
        let mut line = format!("transformer: {}", sizes(self.bytes));
        if let Some(encoder) = &self.text {
            line.push_str(&format!(", text encoder: {}", sizes(encoder.bytes)));
        }
        format!("{line}, in {}", text::seconds(self.seconds))
    }
}

/// Bytes of a component's weights before, and of the file of them afterwards.
fn sizes(before: &dyn TensorSource, after: &Path) -> [u64; 2] {
    let after = std::fs::metadata(after).map_or(0, |metadata| metadata.len());
    [brisk_pipelines::memory::stored_bytes(before), after]
}

/// A component's weights, which must not be quantised yet.
fn full(
    source: Option<&Arc<dyn TensorSource>>,
    arguments: &QuantizeArguments,
    component: &str,
) -> Result<Arc<dyn TensorSource>> {
    let source = source.filter(|source| !brisk_quant::file::is_quantised(&***source));
    source.cloned().ok_or_else(|| {
        let model = &arguments.model;
        Failure::failed(format!("the {component} of {model} is quantised already"))
    })
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

    fn prompts(&self) -> Result<Vec<String>> {
        match &self.prompts {
            Some(path) => read_prompts(path),
            None if self.model == box_model::IMAGE.name => Ok(lines(BOX_PROMPTS)),
            None => Err(Failure::usage(
                "--prompts: which captions should calibrate the model? Give a file with one a line, \
                 about 32 to 128 of what it usually draws",
            )),
        }
    }

    fn single_file(&self) -> bool {
        self.output.extension().is_some_and(|e| e == "safetensors")
    }

    /// Refuses to write over what is read.
    fn check_places(&self, folder: &ModelFolder) -> Result {
        let mut inputs = Vec::new();
        if let ModelFolder::Disk(model) = folder {
            inputs.push(model.as_path());
            check_output(&self.output, &inputs)?;
        }
        inputs.extend(self.prompts.as_deref());
        // It is removed in the end.
        check_output(&self.work_folder(), &inputs)?;
        Ok(())
    }

    /// Where parts are kept until the whole is written.
    fn work_folder(&self) -> PathBuf {
        let mut name = self.output.clone().into_os_string();
        name.push(".parts");
        PathBuf::from(name)
    }
}

fn make_folder(path: &Path) -> Result {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", path.display())))
}

/// Writes down what the parts in a folder belong to, or refuses parts of another run.
fn remember(work: &Path, arguments: &QuantizeArguments, prompts: &[String]) -> Result {
    let path = work.join("run.json");
    let now = json!({
        "model": arguments.model, "variant": arguments.variant, "method": arguments.method.name(),
        "rank": arguments.rank, "grids": arguments.grids, "iterations": arguments.iterations,
        "svd": format!("{:?}", arguments.svd), "activations": arguments.activations,
        "text_encoder": arguments.text_encoder,
        "rows": arguments.rows, "steps": arguments.steps, "size": arguments.size, "prompts": prompts,
    });
    match read_text(&path, Limit::SETTINGS) {
        Ok(text) if serde_json::from_str::<Value>(&text).is_ok_and(|before| before == now) => {
            output::note(&format!("going on with {}", work.display()));
            Ok(())
        }
        Ok(_) => Err(Failure::failed(format!(
            "{} holds parts of a run with other options; repeat those, or delete the folder",
            work.display()
        ))),
        Err(_) => Ok(write_atomic(&path, format!("{now:#}\n").as_bytes())?),
    }
}

fn stopped(stop: &AtomicBool, arguments: &Path) -> Result {
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::failed(format!(
            "stopped; the same command goes on with what is in {}",
            arguments.display()
        )));
    }
    Ok(())
}

/// Draws the calibration pictures, each with its own seed.
fn draw(
    pipeline: &mut SanaPipeline,
    arguments: &QuantizeArguments,
    prompts: &[String],
    stop: &Arc<AtomicBool>,
) -> Result {
    let mut stages = Stages::new();
    stages.stage("calibrating", prompts.len() as u64);
    for (index, prompt) in prompts.iter().enumerate() {
        let request = ImageRequest {
            steps: arguments.steps,
            width: arguments.size,
            height: arguments.size,
            seed: index as u64,
            ..ImageRequest::new(prompt.clone())
        };
        let mut control = Control::new(|event| {
            if let Event::Warning(warning) = event {
                output::warn(&warning);
            }
        })
        .with_cancel(stop.clone());
        let drawn = pipeline.generate(&request, &mut control);
        if let Err(failure) = drawn {
            stages.finish();
            stopped(stop, &arguments.work_folder())?;
            return Err(failure.into());
        }
        stages.step(index as u64 + 1, prompts.len() as u64);
    }
    stages.finish();
    Ok(())
}

fn quantise(job: &Job, stop: &AtomicBool) -> Result<Vec<PartReport>> {
    let parts = job.parts();
    one_by_one("quantising", parts.len(), job.work, stop, |index| {
        let (block, part) = parts[index];
        let report = job.part(block, part)?;
        let error = 100.0 * report.error.relative();
        let line = format!("{}: output error {error:.2} %", report.name);
        Ok((line, report.resumed, report))
    })
}

fn quantise_text_encoder(job: &TextEncoderJob, stop: &AtomicBool) -> Result<Vec<BlockReport>> {
    one_by_one("text encoder", job.blocks(), job.work, stop, |index| {
        let report = job.block(index)?;
        let errors = report.inputs.iter().map(|input| input.error);
        let error = 100.0 * errors.fold(0.0, f64::max);
        let line = format!("{}: output error up to {error:.2} %", report.name);
        Ok((line, report.resumed, report))
    })
}

/// Does the parts of a job in turn, until it is stopped. `part` gives a line to print, whether an
/// earlier run had done the part, and its report.
fn one_by_one<R>(
    name: &'static str,
    count: usize,
    work: &Path,
    stop: &AtomicBool,
    mut part: impl FnMut(usize) -> Result<(String, bool, R)>,
) -> Result<Vec<R>> {
    let mut stages = Stages::new();
    stages.stage(name, count as u64);
    let mut reports = Vec::with_capacity(count);
    for index in 0..count {
        stopped(stop, work)?;
        let (line, resumed, report) = part(index)?;
        let before = if resumed { " (done before)" } else { "" };
        stages.line(&format!("{line}{before}"));
        reports.push(report);
        stages.step(index as u64 + 1, count as u64);
    }
    stages.finish();
    Ok(reports)
}

/// Everything of a model's folder but what is written anew.
fn copy_rest(folder: &ModelFolder, to: &Path, text_encoder: bool) -> Result {
    for name in folder.list() {
        let replaced = text_encoder
            && name.strip_prefix("text_encoder/").is_some_and(|name| {
                let endings = [".safetensors", ".bin", ".index.json"];
                name == "config.json" || endings.iter().any(|end| name.ends_with(end))
            });
        if name.starts_with("transformer/") || replaced {
            continue;
        }
        let target = to.join(&name);
        if let Some(parent) = target.parent() {
            make_folder(parent)?;
        }
        match folder {
            ModelFolder::Disk(path) => {
                link_or_copy(&path.join(&name), &target)?;
            }
            ModelFolder::Embedded { .. } => write_atomic(&target, &folder.read(&name)?)?,
        }
    }
    Ok(())
}

/// Files below this size are copied, so that the result can be edited without changing its source.
const LINKED_FROM: u64 = 1 << 20;

/// Gives a file a second name where it is large and holds weights, which nobody edits, and copies it
/// elsewhere. What the second name stood for before is replaced when the new file is whole.
fn link_or_copy(from: &Path, to: &Path) -> Result {
    let failed = |error: std::io::Error| {
        Failure::failed(format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        ))
    };
    let real = std::fs::canonicalize(from).map_err(failed)?;
    let is_weights = ["safetensors", "bin", "pth", "pt"]
        .iter()
        .any(|end| from.extension().is_some_and(|found| found == *end));
    let size = std::fs::metadata(&real).map_err(failed)?.len();
    if is_weights && size >= LINKED_FROM {
        let mut trial = to.as_os_str().to_owned();
        trial.push(format!(".{}.tmp", std::process::id()));
        if std::fs::hard_link(&real, &trial).is_ok() {
            let renamed = std::fs::rename(&trial, to);
            // Renaming does nothing where both are names of one file already.
            let _ = std::fs::remove_file(&trial);
            return renamed.map_err(failed);
        }
    }
    let mut file = std::fs::File::open(&real).map_err(failed)?;
    Ok(write_atomic_with(to, |out| {
        std::io::copy(&mut file, out).map(drop)
    })?)
}

fn table(done: &Done) -> String {
    let mut rows = vec![
        ["layer", "output error", "alpha", "beta", "iterations"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for report in &done.layers {
        rows.push(vec![
            report.name.clone(),
            format!("{:.2} %", 100.0 * report.error.relative()),
            format!("{:.2}", report.exponents.0),
            format!("{:.2}", report.exponents.1),
            report.iterations.to_string(),
        ]);
    }
    for block in done.text.iter().flat_map(|text| &text.blocks) {
        for input in &block.inputs {
            rows.push(vec![
                format!("{}.{}", block.name, input.layer),
                format!("{:.2} %", 100.0 * input.error),
                format!("{:.2}", input.alpha),
                String::new(),
                String::new(),
            ]);
        }
    }
    text::table(&rows)
}

fn document(arguments: &QuantizeArguments, done: &Done) -> Value {
    let layers: BTreeMap<&str, Value> = done
        .layers
        .iter()
        .map(|report| {
            let entry = json!({
                "relative_error": report.error.relative(), "alpha": report.exponents.0,
                "beta": report.exponents.1, "iterations": report.iterations,
            });
            (report.name.as_str(), entry)
        })
        .collect();
    let [before, after] = done.bytes;
    let mut document = json!({
        "model": arguments.model, "output": arguments.output.display().to_string(),
        "method": arguments.method.name(), "rank": arguments.rank, "bytes_before": before,
        "bytes_after": after, "seconds": done.seconds, "layers": layers,
    });
    if let Some(encoder) = &done.text {
        let inputs = encoder.blocks.iter().flat_map(|block| {
            let entry = |input: &InputReport| {
                let value = json!({"relative_error": input.error, "alpha": input.alpha});
                (format!("{}.{}", block.name, input.layer), value)
            };
            block.inputs.iter().map(entry)
        });
        let [before, after] = encoder.bytes;
        document["text_encoder"] = json!({
            "method": "awq", "bytes_before": before, "bytes_after": after,
            "inputs": inputs.collect::<BTreeMap<_, _>>(),
        });
    }
    document
}
