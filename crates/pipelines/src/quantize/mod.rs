//! Quantizing a model: what its layers see while it runs, their weights in 4 bits part after part, and a
//! folder that holds the result.
//!
//! ```text
//! calibration prompts through the full model -> Collector: rows of every layer's input
//! for each part of each component:  weights + rows -> brisk_quant -> one file in OUTPUT.parts
//! all parts + the 16-bit rest -> the component's file; the rest of the model's folder beside it
//! ```
//!
//! A part is written as soon as it is done and read again instead of being done twice, so a run that was
//! stopped goes on where it was. Nothing is written to the output before every part is done.
//!
//! A family takes part by being [`Quantizable`]: its components, each with a [`Layout`] that says by which
//! method, and how it runs.

mod awq;
mod collector;
mod folder;
mod report;
mod svdquant;
mod unpack;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use brisk_media::Picture;
use brisk_nn::InputWatcher;
use brisk_quant::{AwqLayout, LowBitLayout};
pub use brisk_quant::{AwqSettings, Method, Settings};
use brisk_store::{ModelFolder, SafetensorsFile, TensorSource};

use crate::error::{Error, Result};
use crate::events::{Control, Event, Work};
use collector::Collector;
use work::WorkFolder;

pub use report::{ComponentReport, LayerReport, PartReport, Quantized};
pub use unpack::{config_beside, unpack};

/// How a component is quantized, and how its layers lie in files.
pub enum Layout {
    /// 4-bit weights and activations beside a low-rank branch (SVDQuant).
    SvdQuant(Box<dyn LowBitLayout>),
    /// 4-bit weights (AWQ).
    Awq(Box<dyn AwqLayout>),
}

/// A part of a model that can be quantized.
pub struct Component {
    /// Its folder, such as `transformer`.
    pub name: &'static str,
    /// Its weights; none where they are made up.
    pub source: Option<Arc<dyn TensorSource>>,
    /// By which method, and where its layers are.
    pub layout: Layout,
    /// File of its weights.
    pub file: &'static str,
}

/// Settings of the runs that calibrate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// Prompts, each run with its place as seed.
    pub prompts: Vec<String>,
    /// Rows that are kept of every layer's input.
    pub rows: usize,
    /// Steps of each run; the model's own when `None`.
    pub steps: Option<usize>,
    /// Side of each picture in pixels; the model's own when `None`.
    pub size: Option<usize>,
    /// First frames, of clips alone: the prompts take them in turn.
    pub pictures: Vec<Arc<Picture>>,
}

/// A model that can be quantized, as its family gives it.
pub trait Quantizable {
    /// Its components, those that are quantized by SVDQuant first.
    fn components(&self) -> Vec<Component>;

    /// Refuses, before anything is computed or written, what the first of the calibration's runs would refuse; there is
    /// one at least.
    ///
    /// # Errors
    /// A setting of the calibration that the model does not honour, by its option's name.
    fn check(&self, calibration: &Calibration) -> Result<()>;

    /// Lets `watcher` see what goes into every linear layer of a component from now on.
    fn watch(&mut self, component: &str, watcher: InputWatcher);

    /// Runs the model on prompt `index`.
    ///
    /// # Errors
    /// Those of the model; [`Error::Cancelled`].
    fn run(&mut self, calibration: &Calibration, index: usize, control: &Control) -> Result<()>;

    /// Drops what is in memory.
    fn release(&mut self);
}

/// What to quantize, how, and where to.
#[derive(Clone, Debug)]
pub struct QuantizeRequest {
    /// What the user calls the model.
    pub model: String,
    /// Variant of its weights.
    pub variant: Option<String>,
    /// Folder to write, or a file (`.safetensors`) for the first component alone.
    pub output: PathBuf,
    /// Of SVDQuant.
    pub settings: Settings,
    /// Whether its layers that keep full activations get 4-bit weights as well.
    pub weights_alone: bool,
    /// Of AWQ; its components are left as they are when `None`.
    pub awq: Option<AwqSettings>,
    /// How inputs are collected.
    pub calibration: Calibration,
}

/// Rows of every layer's input that are kept by default.
const USUAL_ROWS: usize = 2048;

impl QuantizeRequest {
    /// By SVDQuant with the paper's settings, calibrated on `prompts` with the model's own steps and size.
    pub fn new(model: impl Into<String>, output: impl Into<PathBuf>, prompts: Vec<String>) -> Self {
        Self {
            model: model.into(),
            variant: None,
            output: output.into(),
            settings: Settings::new(Method::SvdQuant),
            weights_alone: false,
            awq: None,
            calibration: Calibration {
                prompts,
                rows: USUAL_ROWS,
                steps: None,
                size: None,
                pictures: Vec::new(),
            },
        }
    }

    /// Whether the output is one file.
    pub fn is_single_file(&self) -> bool {
        self.output.extension().is_some_and(|e| e == "safetensors")
    }

    /// Where parts are kept until the whole is written: what a run that was stopped goes on with.
    pub fn work_folder(&self) -> PathBuf {
        let mut name = self.output.clone().into_os_string();
        name.push(".parts");
        PathBuf::from(name)
    }

    /// Refuses, before anything is loaded, to write over the model or over `more` inputs.
    ///
    /// # Errors
    /// An output that meets an input, or a file for more than one component.
    pub fn check(&self, folder: &ModelFolder, more: &[PathBuf]) -> Result<()> {
        if self.is_single_file() && self.awq.is_some() {
            return Err(Error::request(
                "text-encoder",
                "a .safetensors output is the transformer alone; give a folder",
            ));
        }
        folder::check_places(self, folder, more)
    }
}

/// One component being quantized.
trait Job {
    /// Name and width of every layer input that it needs rows of.
    fn inputs(&self) -> Vec<(String, usize)>;

    /// Number of its parts.
    fn parts(&self) -> usize;

    /// Quantizes a part, or reads what an earlier run made of it.
    fn part(&self, index: usize, work: &WorkFolder, rows: &SafetensorsFile) -> Result<PartReport>;

    /// Writes the component's file, and its configuration where the file lies in a folder.
    fn assemble(&self, work: &WorkFolder, target: &folder::Target) -> Result<()>;
}

/// Quantizes a model; stages, steps and a line for each part go to `control`.
///
/// # Errors
/// A component that is quantized already, weights that are missing or of another shape, files that cannot
/// be written, parts of another run in the work folder; [`Error::Cancelled`], after which the same request
/// goes on where it was.
pub fn quantize(
    folder: &ModelFolder,
    model: &mut dyn Quantizable,
    request: &QuantizeRequest,
    control: &Control,
) -> Result<Quantized> {
    let started = Instant::now();
    request.check(folder, &[])?;
    if !request.calibration.prompts.is_empty() {
        model.check(&request.calibration)?;
    }
    let components = chosen(model, request)?;
    let jobs = components.iter().map(|(component, source)| {
        let job = job(component, &**source, folder, request)?;
        Ok((component, job))
    });
    let jobs: Vec<(&Component, Box<dyn Job + '_>)> = jobs.collect::<Result<_>>()?;
    let work = WorkFolder::open(request, control)?;
    calibrate(model, request, &jobs, &work, control)?;
    model.release();
    let mut parts = Vec::with_capacity(jobs.len());
    for (component, job) in &jobs {
        let rows = work.rows(component.name)?;
        parts.push(do_parts(component.name, &**job, &work, &rows, control)?);
    }
    let mut components_done = Vec::with_capacity(jobs.len());
    folder::prepare(folder, request, &components)?;
    for (((component, source), (_, job)), parts) in components.iter().zip(&jobs).zip(parts) {
        control.check()?;
        let target = folder::Target::of(request, component)?;
        job.assemble(&work, &target)?;
        components_done.push(ComponentReport {
            name: component.name,
            is_awq: matches!(component.layout, Layout::Awq(_)),
            parts,
            bytes: [crate::memory::stored_bytes(&**source), target.bytes()],
        });
    }
    let done = Quantized {
        components: components_done,
        seconds: started.elapsed().as_secs_f64(),
    };
    if !request.is_single_file() {
        folder::write_report(request, &done)?;
    }
    drop(jobs);
    // Everything in it is in the result now.
    work.remove();
    Ok(done)
}

/// A component with the weights that it has.
type WithSource = (Component, Arc<dyn TensorSource>);

/// The components that are asked for, which must not be quantized yet.
fn chosen(model: &dyn Quantizable, request: &QuantizeRequest) -> Result<Vec<WithSource>> {
    let components = model.components().into_iter();
    let asked = components.filter(|component| match component.layout {
        Layout::SvdQuant(_) => true,
        Layout::Awq(_) => request.awq.is_some(),
    });
    asked
        .map(|component| {
            let source = component.source.clone();
            let full = source.filter(|source| !brisk_quant::file::is_quantized(&**source));
            match full {
                Some(source) => Ok((component, source)),
                None => Err(Error::folder(
                    &request.model,
                    format!(
                        "its {} is quantized already, or made up; give the full model",
                        component.name.replace('_', " ")
                    ),
                )),
            }
        })
        .collect()
}

fn job<'a>(
    component: &'a Component,
    source: &'a dyn TensorSource,
    folder: &ModelFolder,
    request: &'a QuantizeRequest,
) -> Result<Box<dyn Job + 'a>> {
    let config = folder.read_json(&format!("{}/config.json", component.name))?;
    Ok(match &component.layout {
        Layout::SvdQuant(layout) => Box::new(svdquant::SvdQuantJob {
            groups: layout.groups(),
            layout: &**layout,
            source,
            config,
            settings: &request.settings,
            weights_alone: request.weights_alone,
        }),
        Layout::Awq(layout) => Box::new(awq::AwqJob {
            component: component.name,
            blocks: layout.blocks(),
            source,
            config,
            settings: request.awq.unwrap_or_default(),
        }),
    })
}

/// Collects rows of what goes into the layers, unless an earlier run did.
fn calibrate(
    model: &mut dyn Quantizable,
    request: &QuantizeRequest,
    jobs: &[(&Component, Box<dyn Job + '_>)],
    work: &WorkFolder,
    control: &Control,
) -> Result<()> {
    if jobs
        .iter()
        .all(|(component, _)| work.has_rows(component.name))
    {
        return Ok(());
    }
    let calibration = &request.calibration;
    let mut collectors = Vec::with_capacity(jobs.len());
    for (component, job) in jobs {
        let collector = Collector::new(job.inputs(), calibration.rows);
        model.watch(component.name, collector.watcher());
        collectors.push((component.name, collector));
    }
    let total = calibration.prompts.len();
    control.stage("calibrating", Work::Run, total);
    for index in 0..total {
        let started = Instant::now();
        // The stages of a run are not those of this job.
        let (warnings, listener) = std::sync::mpsc::channel();
        let inner = Control::new(move |event| {
            if let Event::Warning(_) = event {
                let _ = warnings.send(event);
            }
        })
        .with_cancel(control.cancel_flag());
        let ran = model.run(calibration, index, &inner);
        drop(inner);
        listener.into_iter().for_each(|event| control.send(event));
        ran?;
        step(control, index, total, started);
    }
    for (name, collector) in collectors {
        collector.save(&work.rows_path(name))?;
    }
    Ok(())
}

/// Does the parts of a job in turn.
fn do_parts(
    name: &'static str,
    job: &dyn Job,
    work: &WorkFolder,
    rows: &SafetensorsFile,
    control: &Control,
) -> Result<Vec<PartReport>> {
    let total = job.parts();
    control.stage(name, Work::Run, total);
    let mut reports = Vec::with_capacity(total);
    for index in 0..total {
        control.check()?;
        let started = Instant::now();
        let report = job.part(index, work, rows)?;
        control.send(Event::Log(report.line()));
        reports.push(report);
        step(control, index, total, started);
    }
    Ok(reports)
}

fn step(control: &Control, index: usize, total: usize, started: Instant) {
    control.send(Event::Step {
        index: index + 1,
        total,
        seconds: started.elapsed().as_secs_f64(),
    });
}
