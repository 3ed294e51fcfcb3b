//! HART (arXiv 2410.10812): what codes lose of a picture, and what residual tokens give back.

use std::sync::Arc;

use brisk_media::{Picture, byte_to_signed, psnr, ssim};
use brisk_models::hart::tokenizer::{Parts, Tokenizer};
use brisk_nn::{Tensor, Trace};
use brisk_store::ModelFolder;

use super::load::{Files, LoadOptions};
use super::options::NO_RESIDUAL;
use super::pipeline::picture as decoded;
use crate::error::{Error, Result};
use crate::evaluation_pictures::{EvaluationPictures, NamedPicture};
use crate::events::{Control, StepClock, Work};
use crate::options::{Options, keys};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Reproduction};
use crate::request::{GeneratedImage, ImageModel, ImageRequest, OpenSettings};

/// The claim of the paper.
pub(super) static HART: Reproduction = Reproduction {
    paper: "hart",
    title: "HART: Efficient Visual Generation with Hybrid Autoregressive Transformer",
    arxiv: "2410.10812",
    claim: "a picture is codes and what they leave: a small diffusion head for the residual tokens makes an \
            autoregressive model draw as well as diffusion does, several times as fast",
    reported: &[],
    reported_on: "HART-0.7B, A100",
    model: "hart-emoji",
    beside: Some(DIFFUSION),
    run,
};

/// The model whose time is shown beside, and its steps.
const DIFFUSION: &str = "sana-emoji";
const STEPS: usize = 20;
/// Pictures that are timed.
const TIMED: usize = 8;
/// By how many decibels hybrid decoding is to be above discrete decoding.
const LEAST_GAIN: f64 = 2.0;
/// Counted for a picture without any difference, dB.
const MOST_DECIBELS: f64 = 100.0;
/// Deviations of a mean between which it lies with 95 %.
const CONFIDENCE: f64 = 1.96;

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let control = laboratory.control;
    let Some(known) = EvaluationPictures::read(&laboratory.model)? else {
        return Err(Error::folder(
            laboratory.model.label(),
            format!(
                "has no {}; a model of `brisk train image` brings it along",
                EvaluationPictures::PROMPTS
            ),
        ));
    };
    let mut model = open(&laboratory.model)?;
    check_sizes(&known, &*model)?;
    let [discrete, hybrid] = reconstructed(&laboratory.model, &known.held_out, control)?;
    let pictures = drawn(&mut *model, &known.trained, control)?;
    let truth: Vec<Picture> = known
        .trained
        .iter()
        .map(|one| one.picture.clone())
        .collect();
    let [without, with] = &pictures;
    let features = Compared::new(
        &|pictures| (laboratory.pair_distance)(pictures, &truth),
        without,
        with,
    )?;
    let similarity = Compared::new(
        &|pictures| {
            let pairs = pictures.iter().zip(&truth);
            let found = pairs.map(|(picture, truth)| ssim(picture, truth));
            Ok(found.collect::<std::result::Result<_, _>>()?)
        },
        without,
        with,
    )?;
    let seconds = picture_seconds(&mut *model, Options::new(), &known.trained, control)?;
    let mut other = open(&(laboratory.find)(DIFFUSION)?)?;
    let steps = Options::new().with(&keys::STEPS, STEPS);
    let of_diffusion = picture_seconds(&mut *other, steps, &known.trained, control)?;
    let sides = [model.usual_size().0, other.usual_size().0];
    let rows = vec![
        Measured::new(
            format!("{} held-out pictures, from codes", known.held_out.len()),
            "rFID 1.09 at 1024 px",
            format!("{discrete:.2} dB"),
        ),
        Measured::new(
            "the same, codes and residual",
            "0.30",
            format!("{hybrid:.2} dB, {:+.2}", hybrid - discrete),
        ),
        Measured::new(
            format!("{} drawn, without residual tokens", truth.len()),
            "FID 5.73 at 1024 px",
            format!(
                "distance of features {:.4} from the true picture, SSIM {:.3}",
                features.without, similarity.without
            ),
        ),
        Measured::new(
            "the same codes, with residual tokens",
            "5.38",
            format!(
                "{:.4}, {:+.4} ± {:.4} (95 %); SSIM {:+.4} ± {:.4}",
                features.without + features.gain,
                features.gain,
                features.off,
                similarity.gain,
                similarity.off
            ),
        ),
        Measured::new(
            "a picture",
            "0.75 s at 1024 px; SDXL, 20 steps, 2.3 s",
            format!(
                "{:.0} ms at {} px; {DIFFUSION}, {STEPS} steps, {:.0} ms at {} px",
                1000.0 * seconds,
                sides[0],
                1000.0 * of_diffusion,
                sides[1]
            ),
        ),
    ];
    Ok(Evidence {
        setting: format!(
            "{}; its folder's pictures: those that it never saw are encoded and decoded, and of those that it was \
             trained on the prompts are drawn, each with a seed of its own",
            model.label()
        ),
        rows,
        effect: format!(
            "codes with their residual are at least {LEAST_GAIN} dB nearer to pictures than codes alone, and residual \
             tokens bring drawn pictures nearer to the true ones by their features (LPIPS of the checker of scenes), with \
             95 % confidence"
        ),
        appears: hybrid >= discrete + LEAST_GAIN && -features.gain > features.off,
    })
}

fn open(folder: &ModelFolder) -> Result<Box<dyn ImageModel>> {
    let options = Options::new().with(&keys::RESIDENCY, "all".to_owned());
    registry::open_image(folder, &OpenSettings::new(options))
}

/// Refuses pictures of another size than the model draws, and too few to compare.
fn check_sizes(known: &EvaluationPictures, model: &dyn ImageModel) -> Result<()> {
    let side = model.usual_size().0;
    let wrong = |message: String| {
        let file = format!("{}/{}", model.label(), EvaluationPictures::SHEET);
        Err(Error::config(file, message))
    };
    for (kind, pictures) in [("trained", &known.trained), ("held_out", &known.held_out)] {
        let Some(first) = pictures.first() else {
            return wrong(format!("no picture under \"{kind}\"; there must be some"));
        };
        if first.picture.width != side {
            return wrong(format!(
                "pictures of {} pixels; the model draws {side}",
                first.picture.width
            ));
        }
    }
    Ok(())
}

/// Mean PSNR of pictures from their codes and from their latents.
fn reconstructed(
    folder: &ModelFolder,
    pictures: &[NamedPicture],
    control: &Control,
) -> Result<[f64; 2]> {
    let settings = OpenSettings::default();
    let options = LoadOptions::read(&settings)?;
    let files = Files::open(folder, &settings, &options)?;
    let tokenizer = files.load_tokenizer(&options, Parts::All)?;
    control.stage("encoding and decoding", Work::Run, pictures.len());
    let mut clock = StepClock::new(pictures.len());
    let mut sums = [0.0; 2];
    for one in pictures {
        control.check()?;
        let latent = latent(&tokenizer, &one.picture)?;
        let sum = tokenizer.quantizer().encode(&files.scales, &latent)?.sum;
        for (into, shown) in sums.iter_mut().zip([&sum, &latent]) {
            let found = decoded(&tokenizer, shown, control)?;
            *into += psnr(&found, &one.picture)?.min(MOST_DECIBELS);
        }
        clock.step(control);
    }
    Ok(sums.map(|sum| sum / pictures.len().max(1) as f64))
}

fn latent(tokenizer: &Tokenizer, picture: &Picture) -> Result<Tensor> {
    let values = picture.pixels.iter().map(|byte| byte_to_signed(*byte));
    let shape = (1, picture.height, picture.width, 3);
    let shown = Tensor::from_vec(values.collect(), shape)?;
    Ok(tokenizer.latent(&shown, &mut Trace::none())?)
}

/// Of each picture's prompt what is drawn: of its codes alone, and with residual tokens.
fn drawn(
    model: &mut dyn ImageModel,
    pictures: &[NamedPicture],
    control: &Control,
) -> Result<[Vec<Picture>; 2]> {
    let silent = Control::silent().with_cancel(control.cancel_flag());
    control.stage("drawing", Work::Run, pictures.len());
    let mut clock = StepClock::new(pictures.len());
    let mut found = [Vec::new(), Vec::new()];
    for (seed, one) in pictures.iter().enumerate() {
        let request = ImageRequest::new(&one.prompt).with(&keys::SEED, seed as u64);
        let with = only(model, &request, &silent)?;
        let Some(codes) = with.codes.clone() else {
            return Err(Error::folder(model.label(), "gives no codes"));
        };
        let request = request
            .with(&keys::CODES, Arc::new(codes))
            .with(&NO_RESIDUAL, true);
        let without = only(model, &request, &silent)?;
        found[0].push(without.picture);
        found[1].push(with.picture);
        clock.step(control);
    }
    Ok(found)
}

/// What a measure says of pictures without and with residual tokens.
struct Compared {
    /// The mean without.
    without: f64,
    /// How much more it is with them.
    gain: f64,
    /// How far that may be off, with 95 % confidence.
    off: f64,
}

impl Compared {
    fn new(
        measure: &dyn Fn(&[Picture]) -> Result<Vec<f64>>,
        without: &[Picture],
        with: &[Picture],
    ) -> Result<Self> {
        let (without, with) = (measure(without)?, measure(with)?);
        let gains: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a - b).collect();
        let (gain, off) = mean_with_confidence(&gains);
        Ok(Self {
            without: mean_with_confidence(&without).0,
            gain,
            off,
        })
    }
}

fn only(
    model: &mut dyn ImageModel,
    request: &ImageRequest,
    control: &Control,
) -> Result<GeneratedImage> {
    let found = model.draw(request, control)?.pop();
    found.ok_or_else(|| Error::folder(model.label(), "drew nothing"))
}

/// The median of what some pictures take, one after the other, once the networks are loaded.
fn picture_seconds(
    model: &mut dyn ImageModel,
    options: Options,
    pictures: &[NamedPicture],
    control: &Control,
) -> Result<f64> {
    let silent = Control::silent().with_cancel(control.cancel_flag());
    let mut seconds = Vec::with_capacity(TIMED);
    for one in pictures.iter().take(TIMED + 1) {
        let request = ImageRequest {
            prompts: vec![one.prompt.clone()],
            options: options.clone(),
        };
        let started = std::time::Instant::now();
        only(model, &request, &silent)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    // The first loads what is not loaded yet.
    let mut later = seconds.split_off(seconds.len().min(1));
    later.sort_by(f64::total_cmp);
    let median = later.get(later.len() / 2).or(seconds.first());
    Ok(median.copied().unwrap_or(f64::NAN))
}

/// A mean, and how far it may be off with 95 % confidence.
fn mean_with_confidence(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    (mean, CONFIDENCE * deviation / count.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_as_sure_as_its_values_are_many_and_alike() {
        let (mean, off) = mean_with_confidence(&[1.0, 2.0, 3.0, 4.0]);
        assert!((mean - 2.5).abs() < 1e-12 && (off - 1.96 * 1.290_994 / 2.0).abs() < 1e-4);
        let (mean, off) = mean_with_confidence(&[7.0; 9]);
        assert!((mean - 7.0).abs() < 1e-12 && off < 1e-12);
    }
}
