//! SVDQuant (arXiv 2411.05007): what 4 bits cannot hold goes into a branch of low rank before rounding.

use std::path::Path;

use brisk_media::{Picture, psnr};
use brisk_quant::{Method, Settings};
use brisk_store::ModelFolder;

use crate::error::{Error, Result};
use crate::events::{Control, StepClock, Work};
use crate::options::{Options, keys};
use crate::quantize::{QuantizeRequest, Quantized, quantize};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Reproduction};
use crate::request::{ImageModel, ImageRequest, OpenSettings};

/// The claim of the paper.
pub static SVDQUANT: Reproduction = Reproduction {
    paper: "svdquant",
    title: "SVDQuant: Absorbing Outliers by Low-Rank Components for 4-Bit Diffusion Models",
    arxiv: "2411.05007",
    claim: "with weights and activations of 4 bits, smoothing and a branch of rank 32 together keep pictures \
            nearer to the full model's than rounding, smoothing or a branch alone",
    reported: &[],
    reported_on: "SANA-1.6B, 5000 prompts of MJHQ-30K",
    model: "sana-emoji",
    beside: None,
    run,
};

/// A method, and what is reported of it: PSNR to the full model's pictures by the authors' library, on
/// SANA-1.6B in int4; of smoothing or a branch alone the paper has a drawing and words only.
const METHODS: [(Method, &str); 5] = [
    (Method::Rtn, "15.3 dB"),
    (Method::Smooth, ""),
    (Method::Svd, "hardly above rtn"),
    (Method::SvdQuant, "17.4 dB"),
    (Method::SvdQuantGptq, "17.8 dB"),
];

/// Drawn in full precision to see what goes into layers.
const CALIBRATION: [&str; 12] = [
    "red heart",
    "dog face",
    "pizza",
    "rocket",
    "guitar",
    "sunflower",
    "snowman",
    "umbrella",
    "star",
    "whale",
    "camera",
    "hamburger",
];
/// Drawn to compare.
const PROMPTS: [&str; 12] = [
    "cat face",
    "rose",
    "cheese wedge",
    "basketball",
    "trumpet",
    "owl",
    "butterfly",
    "shark",
    "horse",
    "bear",
    "snail",
    "tulip",
];
/// Seed of the first picture, beyond those of calibration pictures.
const FIRST_SEED: u64 = 1000;
/// Rows that are kept of every layer's input.
const ROWS: usize = 512;
/// Steps of the search for smoothing factors.
const GRIDS: usize = 8;
/// Counted for a picture without any difference, dB.
const MOST_DECIBELS: f64 = 100.0;
/// Least gain over rounding to nearest that counts as the paper's effect, dB.
const LEAST_GAIN: f64 = 3.0;

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let mut full = open(&laboratory.model, None)?;
    let label = full.label().to_owned();
    let control = laboratory.control;
    control.stage("methods", Work::Run, METHODS.len());
    let mut clock = StepClock::new(METHODS.len());
    let wanted = pictures(&mut *full, laboratory)?;
    let mut rows = Vec::new();
    let mut measured = Vec::new();
    for (method, paper) in METHODS {
        let output = laboratory.scratch.join(method.name());
        let done = quantized(&mut *full, method, &output, laboratory)?;
        let mut model = open(&ModelFolder::Disk(output), Some("4"))?;
        let decibels = mean_psnr(&pictures(&mut *model, laboratory)?, &wanted)?;
        rows.push(Measured::new(
            method.name(),
            paper,
            format!("{decibels:.1} dB, {}", layers(&done)),
        ));
        measured.push((method, decibels));
        clock.step(control);
    }
    let of = |wanted: Method| {
        let found = measured.iter().find(|(method, _)| *method == wanted);
        found.map_or(f64::NAN, |(_, decibels)| *decibels)
    };
    let ours = of(Method::SvdQuant);
    Ok(Evidence {
        setting: format!(
            "{label}, {} pictures, 4-bit activations, PSNR to the full model's pictures; calibrated on {} \
             prompts, {ROWS} rows a layer, {} smoothing factors: fewer of each than `brisk quantize` takes; the \
             paper: SANA-1.6B, 5000 prompts, figures of its library. Which method loses less is compared, not \
             how much: a small model of plain pictures loses less; FID, human preference and speed are not \
             measured",
            PROMPTS.len(),
            CALIBRATION.len(),
            2 * GRIDS - 1,
        ),
        rows,
        effect: format!(
            "svdquant is at least {LEAST_GAIN} dB nearer than rtn, and nearer than smooth and than svd"
        ),
        appears: ours >= of(Method::Rtn) + LEAST_GAIN
            && ours > of(Method::Smooth)
            && ours > of(Method::Svd),
    })
}

/// A model that stays in memory; `activations` of its 4-bit layers.
fn open(folder: &ModelFolder, activations: Option<&str>) -> Result<Box<dyn ImageModel>> {
    let options = Options::new()
        .with(&keys::RESIDENCY, "all".to_owned())
        .with_some(&keys::ACTIVATIONS, activations.map(str::to_owned));
    registry::open_image(folder, &OpenSettings::new(options))
}

/// Quantizes the model's transformer into a folder.
fn quantized(
    model: &mut dyn ImageModel,
    method: Method,
    output: &Path,
    laboratory: &Laboratory,
) -> Result<Quantized> {
    let prompts = CALIBRATION.map(str::to_owned).to_vec();
    let mut request = QuantizeRequest::new(model.label(), output, prompts);
    request.settings = Settings {
        grids: GRIDS,
        ..Settings::new(method)
    };
    request.calibration.rows = ROWS;
    let label = model.label().to_owned();
    let Some(quantizable) = model.quantizable() else {
        return Err(Error::folder(label, "has no layout of 4-bit files"));
    };
    quantize(
        &laboratory.model,
        quantizable,
        &request,
        &silent(laboratory),
    )
}

/// Stages of a method are too many to show.
fn silent(laboratory: &Laboratory) -> Control {
    Control::silent().with_cancel(laboratory.control.cancel_flag())
}

/// One picture of each prompt, each with a seed of its own.
fn pictures(model: &mut dyn ImageModel, laboratory: &Laboratory) -> Result<Vec<Picture>> {
    let silent = silent(laboratory);
    let mut pictures = Vec::new();
    for (seed, prompt) in (FIRST_SEED..).zip(PROMPTS) {
        let request = ImageRequest::new(prompt).with(&keys::SEED, seed);
        let images = model.draw(&request, &silent)?;
        pictures.extend(images.into_iter().map(|image| image.picture));
    }
    Ok(pictures)
}

fn mean_psnr(found: &[Picture], wanted: &[Picture]) -> Result<f64> {
    let mut sum = 0.0;
    for (found, wanted) in found.iter().zip(wanted) {
        sum += psnr(found, wanted)?.min(MOST_DECIBELS);
    }
    Ok(sum / wanted.len().max(1) as f64)
}

/// Error of the layers, and what the weights take.
fn layers(done: &Quantized) -> String {
    let layers = done.components.iter().flat_map(|part| part.layers());
    let errors: Vec<f64> = layers.map(|layer| layer.error).collect();
    let bytes = done
        .components
        .iter()
        .map(|part| part.bytes[1])
        .sum::<u64>();
    format!(
        "layer error {:.1} %, {:.1} MiB",
        100.0 * errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        bytes as f64 / (1 << 20) as f64
    )
}
