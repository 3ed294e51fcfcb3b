//! The denoising loops: guided flow steps, and consistency steps of few-step models.
//!
//! Pictures and guidance branches form rows (all negative prompts first, then prompts, then perturbed
//! ones) that go through the network in chunks of bounded size, so that many pictures or large ones
//! need no more memory than a few small ones.

use brisk_nn::{Tensor, check_finite};

use super::guidance::{Branches, PerturbedAttention};
use super::latents::Noise;
use super::schedulers::scm::Scm;
use super::schedulers::{FlowSampler, clean_estimate};
use crate::error::Result;
use crate::events::{Control, StepClock, Work};

/// Tokens that go through the network at once, unless a single row has more.
const TOKENS_PER_CHUNK: usize = 4096;

/// Called after a step with what it left.
pub type AfterStep<'a> = &'a mut dyn FnMut(&Done) -> Result<()>;

/// A finished step.
pub struct Done<'a> {
    /// From 1.
    pub index: usize,
    /// Steps of the run.
    pub total: usize,
    /// The sample `[B, h, w, C]` that the next step starts from.
    pub latents: &'a Tensor,
    /// The estimate of the clean sample `[B, h, w, C]`, scaled as the network sees it.
    pub clean: &'a Tensor,
}

/// Which evaluation of guidance a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// With the negative prompt.
    Unconditional,
    /// With the prompt.
    Conditional,
    /// With the prompt and perturbed attention.
    Perturbed,
}

/// One row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Number of the picture.
    pub image: usize,
    /// Its branch.
    pub branch: Branch,
}

/// A network that predicts velocities, set up with everything of a request but latents and time.
pub trait VelocityModel {
    /// What consecutive rows need at every step, such as their captions' keys and values.
    type Rows;

    /// Gathers what `rows` need. Perturbed rows are the last.
    ///
    /// # Errors
    /// Tensors that don't fit together.
    fn rows(&self, rows: &[Row]) -> Result<Self::Rows>;

    /// Velocities `[rows, h, w, C]` at latents of the same shape, model time `time`, and guidance where
    /// it is an input of the network.
    ///
    /// # Errors
    /// A non-finite activation, or tensors that don't fit together.
    fn velocity(
        &self,
        rows: &Self::Rows,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
    ) -> Result<Tensor>;

    /// What the sampler's time is multiplied by for the network.
    fn time_scale(&self) -> f32 {
        1.0
    }
}

struct Chunk<R> {
    images: Tensor,
    rows: R,
}

/// A network set up for one request.
pub struct Denoiser<M: VelocityModel> {
    model: M,
    pag: Option<PerturbedAttention>,
    chunks: Vec<Chunk<M::Rows>>,
    images: usize,
    guided: bool,
}

impl<M: VelocityModel> Denoiser<M> {
    /// Sets a network up for `images` pictures of `tokens` tokens each; `guided` with a second
    /// evaluation, `pag` with a perturbed one.
    ///
    /// # Errors
    /// As [`VelocityModel::rows`].
    pub fn new(
        model: M,
        images: usize,
        tokens: usize,
        guided: bool,
        pag: Option<PerturbedAttention>,
    ) -> Result<Self> {
        let mut branches = vec![Branch::Conditional];
        if guided {
            branches.insert(0, Branch::Unconditional);
        }
        if pag.is_some() {
            branches.push(Branch::Perturbed);
        }
        let rows: Vec<Row> = branches
            .into_iter()
            .flat_map(|branch| (0..images).map(move |image| Row { image, branch }))
            .collect();
        let chunks = rows
            .chunks(rows_at_once(rows.len(), tokens))
            .map(|rows| {
                let images: Vec<u32> = rows.iter().map(|row| row.image as u32).collect();
                Ok(Chunk {
                    images: Tensor::new(images)?,
                    rows: model.rows(rows)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            model,
            pag,
            chunks,
            images,
            guided,
        })
    }

    /// Velocities of every branch for `latents` `[B, h, w, C]` at model time `time`.
    fn velocities(&self, latents: &Tensor, time: f32, guidance: Option<f32>) -> Result<Branches> {
        let mut parts = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let latents = latents.index_select(&chunk.images, 0)?;
            let velocity = self.model.velocity(&chunk.rows, &latents, time, guidance)?;
            parts.push(velocity);
        }
        let all = if parts.len() == 1 {
            parts.remove(0)
        } else {
            Tensor::cat(&parts, 0)?
        };
        let mut next = 0;
        let mut take = || {
            let part = all.narrow(0, next, self.images);
            next += self.images;
            part
        };
        let unconditional = if self.guided { Some(take()?) } else { None };
        let conditional = take()?;
        let perturbed = if self.pag.is_some() {
            Some(take()?)
        } else {
            None
        };
        Ok(Branches {
            conditional,
            unconditional,
            perturbed,
        })
    }

    /// Flow steps from level `start` on. `latents` `[B, h, w, C]` stand at that level; the result is clean.
    ///
    /// # Errors
    /// A non-finite sample, or a cancellation.
    pub fn run_flow(
        &self,
        sampler: &mut dyn FlowSampler,
        start: usize,
        latents: Tensor,
        weight: f32,
        control: &Control,
        after: AfterStep,
    ) -> Result<Tensor> {
        let steps = sampler.timesteps().len();
        control.stage("denoise", Work::Run, steps - start);
        let mut clock = StepClock::new(steps - start);
        let scale = self.model.time_scale();
        let mut latents = latents;
        for index in start..steps {
            let time = sampler.timesteps()[index];
            let branches = self.velocities(&latents, time * scale, None)?;
            let perturbed = self.pag.as_ref().map_or(0.0, |pag| pag.scale_at(time));
            let velocity = branches.combine(weight, perturbed)?;
            let done = index + 1 - start;
            let clean = clean_estimate(&latents, &velocity, sampler.sigmas()[index])?;
            latents = sampler.step(index, &velocity, &latents)?;
            check_finite(&latents, "denoise", &format!("step {done}"))?;
            clock.step(control);
            after(&Done {
                index: done,
                total: steps - start,
                latents: &latents,
                clean: &clean,
            })?;
        }
        Ok(latents)
    }

    /// Consistency steps. `latents` `[B, h, w, C]` stand at the first angle; the result is clean, divided by σ_d.
    /// Every step draws noise, also the last, so that the stream of random numbers is the reference's.
    ///
    /// # Errors
    /// A non-finite sample, or a cancellation.
    pub fn run_scm(
        &self,
        scm: &Scm,
        latents: Tensor,
        guidance: Option<f32>,
        noise: &mut Noise,
        control: &Control,
        after: AfterStep,
    ) -> Result<Tensor> {
        let steps = scm.steps();
        control.stage("denoise", Work::Run, steps);
        let mut clock = StepClock::new(steps);
        let shape = latents.dims4()?;
        let unscale = 1.0 / f64::from(scm.sigma_data());
        let mut latents = latents;
        let mut clean = latents.clone();
        for index in 0..steps {
            let input = scm.model_input(index, &latents)?;
            let velocity = self
                .velocities(&input, scm.model_time(index), guidance)?
                .conditional;
            let prediction = scm.prediction(index, &input, &velocity)?;
            let noise = noise.draw(shape)?;
            (latents, clean) = scm.step(index, &prediction, &latents, &noise)?;
            check_finite(&clean, "denoise", &format!("step {}", index + 1))?;
            clock.step(control);
            clean = clean.affine(unscale, 0.0)?;
            after(&Done {
                index: index + 1,
                total: steps,
                latents: &latents,
                clean: &clean,
            })?;
        }
        Ok(clean)
    }
}

/// The largest number of rows of `tokens` tokens that go through a network at once, of `rows` in all.
pub fn rows_at_once(rows: usize, tokens: usize) -> usize {
    (TOKENS_PER_CHUNK / tokens.max(1)).clamp(1, rows.max(1))
}
