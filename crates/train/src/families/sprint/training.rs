//! The run.

use std::ops::Range;
use std::path::Path;

use brisk_models::dcae::AutoencoderConfig;
use brisk_nn::Tensor;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::sana::prompt::EncodedPrompt;
use brisk_pipelines::folder::Opened;
use serde::Serialize;

use super::draws::{DiscriminatorDraws, StudentDraws};
use super::networks::{Networks, SprintControl, SprintTeacher, frozen_student};
use super::objective::{LossWeights, Samples};
use super::sample::Sheet;
use super::steered::{Steered, SteeredCaption};
use super::texts::Texts;
use super::{SprintRecipe, export};
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::families::image::controlnet::{self, CONTROLNET, ControlNetOptions, Sketches};
use crate::families::image::{MODEL, largest_latent};
use crate::inputs::Inputs;
use crate::latents::Latents;
use crate::log::mean_of_last_tenth;
use crate::session::{self, LOG, REPORT, Session, write_json};
use crate::{captions, eval};

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SprintReport {
    /// Finished updates, of the student and of the discriminator.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the student's transformer, or of its ControlNet.
    pub parameters: usize,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// A batch as the parts of an update see it.
struct Batch<'a> {
    latents: &'a Latents,
    slots: Vec<usize>,
    prompts: Vec<EncodedPrompt>,
    texts: &'a Texts,
    /// Sketches of the pictures, and which of them the samples are shown.
    sketches: Option<(&'a Sketches, Vec<usize>)>,
}

impl Batch<'_> {
    /// Values of a sample.
    fn each(&self) -> usize {
        let first = self.slots.first();
        first.map_or(0, |slot| self.latents.row(*slot).len())
    }

    /// What the samples' ControlNets are shown.
    fn shown(&self, part: &Range<usize>) -> Result<Option<Tensor>> {
        let shown = self
            .sketches
            .as_ref()
            .map(|(sketches, chosen)| sketches.latents(&chosen[part.clone()], self.latents));
        shown.transpose()
    }

    fn samples(
        &self,
        networks: &Networks<Steered>,
        part: &Range<usize>,
    ) -> Result<Samples<Steered>> {
        let (rows, lengths) = self.texts.encode(&self.prompts[part.clone()])?;
        let shown = self.shown(part)?;
        let encode = |network: &Steered| network.encode_caption(&rows, &lengths, shown.as_ref());
        Ok(Samples {
            latents: self
                .latents
                .batch(self.slots[part.clone()].iter().copied())?,
            student: encode(&networks.student)?,
            teacher: encode(&networks.teacher)?,
        })
    }

    /// Of each sample, the one before it in the batch.
    fn neighbours(&self, part: &Range<usize>) -> Result<Tensor> {
        let count = self.slots.len();
        let before = |index: usize| self.slots[(index + count - 1) % count];
        self.latents.batch(part.clone().map(before))
    }
}

/// Distils `teacher` into a student of a few steps by the recipe, on the latents that its autoencoder makes of the
/// pictures, or, where `steering` brings them, the teacher's ControlNet into one for its student, into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end `model/` (the layout of
/// SANA-Sprint, bf16, with the teacher's text encoder, tokenizer and autoencoder) and `report.json`. Continues when `out`
/// holds a checkpoint of the same recipe.
///
/// # Errors
/// A data set or teacher that does not fit the recipe, files that cannot be read or written, a run that diverges, or one
/// that was asked to stop: its checkpoint is written.
pub fn distill_sprint(
    recipe: &SprintRecipe,
    data: &PictureData,
    teacher: &SprintTeacher,
    steering: Option<&SprintControl>,
    vae: &Opened<AutoencoderConfig>,
    out: &Path,
    control: &Control,
) -> Result<SprintReport> {
    recipe.validate()?;
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let autoencoder = eval::load_autoencoder(vae)?;
    let result = match steering {
        Some(_) => CONTROLNET,
        None => MODEL,
    };
    let _lock = session::claim(out, result)?;
    let mut sources = teacher.sources();
    sources.extend(steering.map(SprintControl::sources).unwrap_or_default());
    let inputs = Inputs::default()
        .data(data)?
        .autoencoder(vae)?
        .start(&sources)?;
    let each = largest_latent(data, &autoencoder, teacher.config())?;
    let parameters = teacher.parameters() + steering.map_or(0, SprintControl::parameters);
    session::check_memory(parameters, options.batch, (each * 48) as u64)?;
    let texts = teacher.texts(recipe.max_tokens)?;
    let (networks, variables) = Networks::new(teacher, steering, recipe)?;
    let latents = Latents::of(data, &training, &autoencoder, &inputs, out, control)?;
    let mut order = latents.order(options.seed)?;
    let sketches = match steering {
        Some(_) => {
            control.stage("encoding their sketches", Work::Run, 0);
            let drawn = (&ControlNetOptions::new(1), options.seed);
            Some(Sketches::new(
                data,
                &training,
                &autoencoder,
                drawn,
                control,
            )?)
        }
        None => None,
    };
    let empty = {
        let (rows, lengths) = texts.encode(&[texts.tokens("")?])?;
        // Any sketch: each sample's own takes its place.
        let shown = sketches
            .as_ref()
            .map(|sketches| sketches.latents(&[0], &latents));
        let shown = shown.transpose()?;
        let network = &networks.teacher;
        network.encode_caption(&rows, &lengths, shown.as_ref())?
    };
    let mut session = Session::open(options, recipe, inputs, variables, out, control)?;
    let sheet = |session: &mut Session, rounded: bool| -> Result<()> {
        let student = frozen_student(teacher, steering, session.ema.arrays(), rounded)?;
        let drawer = Sheet {
            student: &student,
            autoencoder: &autoencoder,
            texts: &texts,
            recipe,
            latents: &latents,
            sketches: sketches.as_ref(),
        };
        drawer.write(session)
    };
    while !session.is_over() {
        let slots = order.batch(session.step, options.batch);
        let prompts = slots.iter().map(|slot| {
            let entry = &data.entries()[training[*slot]];
            let caption = captions::caption(
                entry,
                recipe.name_probability,
                &recipe.caption_scores,
                &mut session.rng,
            );
            texts.tokens(&caption)
        });
        let prompts = prompts.collect::<Result<_>>()?;
        let shown = sketches
            .as_ref()
            .map(|sketches| (sketches, sketches.draw(&slots, &mut session.rng)));
        let batch = Batch {
            latents: &latents,
            prompts,
            slots,
            texts: &texts,
            sketches: shown,
        };
        match recipe.is_discriminators(session.step) {
            false => update_student(&mut session, recipe, &networks, &batch, &empty)?,
            true => update_discriminator(&mut session, recipe, &networks, &batch)?,
        }
        if session.is_due(recipe.sample_every) {
            sheet(&mut session, false)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the model", Work::Run, 0);
    sheet(&mut session, true)?;
    let known = captions::known(data, &training);
    let arrays = session.ema.arrays();
    let report = SprintReport {
        parameters: match steering {
            Some(steering) => controlnet::write(arrays, &steering.config(), out)?,
            None => export::write(teacher, arrays, recipe.guidance, &known, out)?,
        },
        steps: session.step,
        seconds: session.seconds(),
        pictures: training.len(),
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

fn update_student(
    session: &mut Session,
    recipe: &SprintRecipe,
    networks: &Networks<Steered>,
    batch: &Batch,
    empty: &SteeredCaption,
) -> Result<()> {
    let count = batch.slots.len();
    let each = batch.each();
    let draws = StudentDraws::new(recipe, &mut session.rng, count, each);
    let discriminator = networks.discriminator.as_ref();
    let normalised = discriminator.map(|heads| heads.normalise()).transpose()?;
    let weights = LossWeights {
        consistency: recipe.consistency_weight,
        adversarial: recipe.adversarial_weight,
        tangent: recipe.tangent_share(session.step),
    };
    session.update_noting(count, |part| {
        let samples = batch.samples(networks, &part)?;
        let empty = empty.repeat(part.len(), batch.shown(&part)?.as_ref())?;
        let draws = draws.part(&part);
        let normalised = normalised.as_ref();
        networks.student_loss(&samples, &empty, &draws, normalised, weights)
    })
}

fn update_discriminator(
    session: &mut Session,
    recipe: &SprintRecipe,
    networks: &Networks<Steered>,
    batch: &Batch,
) -> Result<()> {
    let count = batch.slots.len();
    let each = batch.each();
    let draws = DiscriminatorDraws::new(recipe, &mut session.rng, count, each);
    let Some(discriminator) = &networks.discriminator else {
        return Ok(());
    };
    let normalised = [discriminator.normalise()?, discriminator.normalise()?];
    session.update_noting(count, |part| {
        let samples = batch.samples(networks, &part)?;
        let neighbours = batch.neighbours(&part)?;
        let draws = draws.part(&part);
        let both = [&normalised[0], &normalised[1]];
        networks.discriminator_loss(&samples, &neighbours, &draws, both)
    })
}
