//! DC-AE (arXiv 2410.10733): fewer tokens for the same picture, at no worse a distance from true ones.

use super::load::{Files, LoadOptions};
use super::options::SAMPLER;
use crate::error::{Error, Result};
use crate::evaluation_pictures::EvaluationPictures;
use crate::events::{Control, StepClock, Work};
use crate::options::{Options, keys};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Reproduction};
use crate::request::{GeneratedImage, ImageModel, ImageRequest, OpenSettings};

/// The claim of the paper.
pub(super) static DC_AE: Reproduction = Reproduction {
    paper: "dc-ae",
    title: "Deep Compression Autoencoder for Efficient High-Resolution Diffusion Models",
    arxiv: "2410.10733",
    claim: "on latents of an autoencoder that compresses 32 times and more along a side, the same transformer draws several \
            times as fast as on those of one that compresses 8 times, and no worse",
    reported: &[],
    reported_on: "ImageNet 512 px; DiT-XL, f32 against f8 with patches of 2, H100",
    model: "class-f32",
    beside: Some(SHALLOW),
    run,
};

/// The model on latents of the usual compression.
const SHALLOW: &str = "class-f8";
/// Pictures that are timed together, and how often both models are timed.
const TIMED: usize = 16;
const ROUNDS: usize = 3;
/// Pictures that are drawn at once for the distances.
const AT_ONCE: usize = 32;
/// Fewest true pictures that distances can be told from.
const LEAST_PICTURES: usize = 16;
/// By how much the steps must be faster, at least, and how much further from true pictures what they draw may be.
const LEAST_SPEED: f64 = 2.0;
const MOST_DISTANCE: f64 = 1.1;

/// A model with what is measured of it.
struct Subject {
    model: Box<dyn ImageModel>,
    options: Options,
    tokens: usize,
    ratio: usize,
    /// Least seconds a picture of denoising and of decoding.
    seconds: [f64; 2],
    distance: f64,
}

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let control = laboratory.control;
    let silent = Control::silent().with_cancel(control.cancel_flag());
    let deep = &laboratory.model;
    let known = EvaluationPictures::read(deep)?.unwrap_or_default();
    if known.trained.len() < LEAST_PICTURES {
        return Err(Error::folder(
            deep.label(),
            format!(
                "has {} true pictures in {}; expected {LEAST_PICTURES} or more, as a model of `brisk train class` brings \
                 them along",
                known.trained.len(),
                EvaluationPictures::PROMPTS
            ),
        ));
    }
    let mut subjects = [
        Subject::open(deep)?,
        Subject::open(&(laboratory.find)(SHALLOW)?)?,
    ];
    let [first, second] = &subjects;
    if first.model.usual_size() != second.model.usual_size() {
        return Err(Error::folder(
            second.model.label(),
            format!(
                "draws pictures of {} px, {} of {}; expected the same size",
                second.model.usual_size().0,
                first.model.label(),
                first.model.usual_size().0
            ),
        ));
    }
    let prompts: Vec<&str> = known.trained.iter().map(|one| &*one.prompt).collect();
    let pictures: Vec<_> = known
        .trained
        .iter()
        .map(|one| one.picture.clone())
        .collect();
    let groups = prompts.len().div_ceil(AT_ONCE);
    let work = subjects.len() * (ROUNDS + 1 + groups);
    control.stage("drawing", Work::Run, work);
    let mut clock = StepClock::new(work);
    // They take turns, so that other work on the machine falls on both. The first time loads the networks.
    for round in 0..=ROUNDS {
        for subject in &mut subjects {
            subject.time(&prompts, round > 0, &silent)?;
            clock.step(control);
        }
    }
    for subject in &mut subjects {
        let mut drawn = Vec::with_capacity(prompts.len());
        for (group, some) in prompts.chunks(AT_ONCE).enumerate() {
            let images = subject.draw(some, (group * AT_ONCE) as u64, &silent)?;
            drawn.extend(images.into_iter().map(|image| image.picture));
            clock.step(control);
        }
        subject.distance = (laboratory.distance)(&drawn, &pictures)?;
    }
    Ok(evidence(&subjects, prompts.len()))
}

fn evidence([deep, shallow]: &[Subject; 2], pictures: usize) -> Evidence {
    let whole = |subject: &Subject| subject.seconds.iter().sum::<f64>();
    let steps = shallow.seconds[0] / deep.seconds[0];
    let mut rows = Vec::new();
    for (subject, steps, fid) in [
        (shallow, "0.85 pictures a second", "FID 3.04"),
        (deep, "4.03 pictures a second", "FID 2.84"),
    ] {
        let what = format!("f{}, {} tokens", subject.ratio, subject.tokens);
        let [denoise, decode] = subject.seconds.map(|seconds| 1000.0 * seconds);
        rows.push(Measured::new(
            format!("{what}: all steps of a picture"),
            steps,
            format!("{denoise:.1} ms, and {decode:.1} ms to decode it"),
        ));
        rows.push(Measured::new(
            format!("{what}: distance from true pictures"),
            fid,
            format!("{:.4}", subject.distance),
        ));
    }
    rows.push(Measured::new(
        "as fast by fewer tokens: steps, and with decoding",
        "4.7x",
        format!("{steps:.2}x, {:.2}x", whole(shallow) / whole(deep)),
    ));
    Evidence {
        setting: format!(
            "{} and {}; {TIMED} pictures at once are timed, and {pictures} drawn, a class for each true picture of the \
             first one's folder; the distance is that of features of the checker of scenes, no FID",
            deep.model.label(),
            shallow.model.label()
        ),
        rows,
        effect: format!(
            "steps on deep latents are at least {LEAST_SPEED} times as fast, and their pictures at most {MOST_DISTANCE} \
             times as far from true ones"
        ),
        appears: steps >= LEAST_SPEED && deep.distance <= MOST_DISTANCE * shallow.distance,
    }
}

impl Subject {
    fn open(folder: &brisk_store::ModelFolder) -> Result<Self> {
        let settings = OpenSettings::new(Options::new().with(&keys::RESIDENCY, "all".to_owned()));
        let files = Files::open(folder, &settings, &LoadOptions::read(&settings)?)?;
        let config = &files.transformer.config;
        // Steps of a number that is given, so that both take as many.
        let options = match config.eval_scheduler.is_flow() {
            true => Options::new()
                .with(&SAMPLER, "heun2".to_owned())
                .with(&keys::STEPS, 16),
            false => Options::new(),
        };
        Ok(Self {
            tokens: config.tokens(),
            ratio: files.vae.config.ratio(),
            model: registry::open_image(folder, &settings)?,
            options,
            seconds: [f64::INFINITY; 2],
            distance: f64::NAN,
        })
    }

    fn draw(
        &mut self,
        prompts: &[&str],
        seed: u64,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let request = ImageRequest {
            prompts: prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
            options: self.options.clone(),
        };
        self.model.draw(&request.with(&keys::SEED, seed), control)
    }

    /// The least time of a picture among some that are drawn at once.
    fn time(&mut self, prompts: &[&str], counts: bool, control: &Control) -> Result<()> {
        let some = &prompts[..prompts.len().min(TIMED)];
        let images = self.draw(some, 0, control)?;
        for (least, stage) in self.seconds.iter_mut().zip(["denoise", "decode"]) {
            let all = images.iter().flat_map(|image| &image.seconds);
            let sum: f64 = all
                .filter(|(name, _)| *name == stage)
                .map(|(_, seconds)| seconds)
                .sum();
            if counts {
                *least = least.min(sum / images.len().max(1) as f64);
            }
        }
        Ok(())
    }
}
