//! The denoising loops: guided flow steps for SANA, consistency steps for SANA-Sprint.
//!
//! Pictures and guidance branches form rows (all negative prompts first, then prompts, then perturbed
//! ones) that go through the transformer in chunks of bounded size, so that many pictures or large
//! ones need no more memory than a few small ones.

use std::ops::Range;

use brisk_models::sana::{
    CaptionContext, ControlWiring, ForwardExtras, Perturbed, SanaTransformer,
};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet};
use brisk_nn::{Tensor, check_finite};

use super::StepClock;
use crate::error::Result;
use crate::events::{Control, Event};
use crate::guidance::{Branches, PerturbedAttention};
use crate::noise::TorchGenerator;
use crate::schedulers::scm::Scm;
use crate::schedulers::{FlowSampler, clean_estimate};

/// Tokens that go through the transformer at once, unless a single row has more.
const TOKENS_PER_CHUNK: usize = 4096;

/// Called after step `index` (from 1) of `total` with what the step left, all `[B, h, w, C]`.
pub(super) type AfterStep<'a> = &'a mut dyn FnMut(&Done, &mut Control) -> Result<()>;

/// A finished step.
pub(super) struct Done<'a> {
    /// From 1.
    pub(super) index: usize,
    pub(super) total: usize,
    /// The sample that the next step starts from.
    pub(super) latents: &'a Tensor,
    /// The estimate of the clean sample, scaled as the transformer sees it.
    pub(super) clean: &'a Tensor,
}

/// A ControlNet with its encoded picture `[1, h, w, C]`.
pub(super) struct Steering<'a> {
    pub(super) model: &'a SanaControlNet,
    pub(super) latent: Tensor,
    pub(super) scale: f32,
    pub(super) wiring: ControlWiring,
}

/// Caption contexts of one model: per prompt, and one or per prompt for the negative side.
pub(super) struct Contexts {
    pub(super) conditional: Vec<CaptionContext>,
    pub(super) unconditional: Vec<CaptionContext>,
}

impl Contexts {
    /// Encodes caption rows `[1, L, D]` with `encode`.
    pub(super) fn encode(
        captions: &super::text::Captions,
        encode: impl Fn(&Tensor, &[usize]) -> brisk_nn::Result<CaptionContext>,
    ) -> Result<Self> {
        let each = |rows: &Vec<Tensor>| -> Result<Vec<CaptionContext>> {
            rows.iter()
                .map(|text| Ok(encode(text, &[text.dim(1)?])?))
                .collect()
        };
        Ok(Self {
            conditional: each(&captions.conditional)?,
            unconditional: each(&captions.unconditional)?,
        })
    }

    fn of(&self, row: &Row, images_per_prompt: usize) -> &CaptionContext {
        let prompt = row.image / images_per_prompt;
        match row.branch {
            // One negative prompt may serve all.
            Branch::Unconditional => &self.unconditional[prompt.min(self.unconditional.len() - 1)],
            Branch::Conditional | Branch::Perturbed => &self.conditional[prompt],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Unconditional,
    Conditional,
    Perturbed,
}

#[derive(Clone, Copy)]
struct Row {
    image: usize,
    branch: Branch,
}

/// Consecutive rows with what they need at every step.
struct Chunk {
    images: Tensor,
    count: usize,
    caption: CaptionContext,
    control_caption: Option<CaptionContext>,
    perturbed: Option<Range<usize>>,
}

/// What a run is made of, besides the transformer.
pub(super) struct Job<'a> {
    pub(super) contexts: Contexts,
    pub(super) control_contexts: Option<Contexts>,
    pub(super) steering: Option<Steering<'a>>,
    pub(super) images: usize,
    pub(super) images_per_prompt: usize,
    /// Tokens of one picture.
    pub(super) tokens: usize,
    pub(super) pag: Option<PerturbedAttention>,
}

/// A transformer set up for one request.
pub(super) struct Denoiser<'a> {
    transformer: &'a SanaTransformer,
    steering: Option<Steering<'a>>,
    pag: Option<PerturbedAttention>,
    chunks: Vec<Chunk>,
    images: usize,
    guided: bool,
}

impl<'a> Denoiser<'a> {
    pub(super) fn new(transformer: &'a SanaTransformer, job: Job<'a>) -> Result<Self> {
        let guided = !job.contexts.unconditional.is_empty();
        let mut branches = vec![Branch::Conditional];
        if guided {
            branches.insert(0, Branch::Unconditional);
        }
        if job.pag.is_some() {
            branches.push(Branch::Perturbed);
        }
        let rows: Vec<Row> = branches
            .into_iter()
            .flat_map(|branch| (0..job.images).map(move |image| Row { image, branch }))
            .collect();
        let chunks = rows
            .chunks((TOKENS_PER_CHUNK / job.tokens.max(1)).max(1))
            .map(|rows| chunk(rows, &job));
        let chunks = chunks.collect::<Result<_>>()?;
        Ok(Self {
            transformer,
            steering: job.steering,
            pag: job.pag,
            chunks,
            images: job.images,
            guided,
        })
    }

    /// The largest number of rows that go through the transformer at once.
    pub(super) fn rows_at_once(rows: usize, tokens: usize) -> usize {
        (TOKENS_PER_CHUNK / tokens.max(1)).clamp(1, rows.max(1))
    }

    /// Velocities of every branch for `latents` `[B, h, w, C]` at model time `time`.
    fn velocities(
        &self,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
        control: &Control,
    ) -> Result<Branches> {
        let mut parts = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            control.check()?;
            parts.push(self.evaluate(chunk, latents, time, guidance)?);
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

    fn evaluate(
        &self,
        chunk: &Chunk,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
    ) -> Result<Tensor> {
        let latents = latents.index_select(&chunk.images, 0)?;
        let column = |value: f32| Tensor::full(value, chunk.count);
        let time = column(time)?;
        let guidance = guidance.map(column).transpose()?;
        let mut extras = ForwardExtras {
            perturbed: self
                .pag
                .as_ref()
                .zip(chunk.perturbed.clone())
                .map(|(pag, rows)| Perturbed {
                    layers: pag.layers.clone(),
                    rows,
                }),
            ..ForwardExtras::default()
        };
        let (first_block, residuals);
        if let (Some(steering), Some(caption)) = (&self.steering, &chunk.control_caption) {
            let picture = steering.latent.repeat((chunk.count, 1, 1, 1))?;
            let start = match steering.wiring {
                ControlWiring::Diffusers => ControlStart::Latent(&latents),
                ControlWiring::Native => {
                    first_block = self.transformer.first_block(
                        &latents,
                        &time,
                        guidance.as_ref(),
                        &chunk.caption,
                        &extras,
                    )?;
                    extras.after_first_block = Some(&first_block);
                    ControlStart::FirstBlock(&first_block)
                }
            };
            let scale = f64::from(steering.scale);
            residuals = steering.model.forward(
                start,
                &picture,
                &time,
                guidance.as_ref(),
                caption,
                scale,
            )?;
            extras.residuals = &residuals;
            extras.residual_wiring = steering.wiring;
        }
        let output = self.transformer.forward(
            &latents,
            &time,
            guidance.as_ref(),
            &chunk.caption,
            &extras,
        )?;
        let channels = latents.dim(3)?;
        if output.dim(3)? == channels {
            return Ok(output);
        }
        // A learned variance follows the velocity; sampling has no use for it.
        Ok(output.narrow(3, 0, channels)?.contiguous()?)
    }

    /// Flow steps from level `start` on. `latents` `[B, h, w, C]` stand at that level; the result is clean.
    pub(super) fn run_flow(
        &self,
        sampler: &mut dyn FlowSampler,
        start: usize,
        latents: Tensor,
        weight: f32,
        control: &mut Control,
        after: AfterStep,
    ) -> Result<Tensor> {
        let steps = sampler.timesteps().len();
        control.send(Event::Stage {
            name: "denoise",
            total: steps - start,
        });
        let mut clock = StepClock::new(steps - start);
        let scale = self.transformer.config().timestep_scale as f32;
        let mut latents = latents;
        for index in start..steps {
            control.check()?;
            let time = sampler.timesteps()[index];
            let branches = self.velocities(&latents, time * scale, None, control)?;
            let perturbed = self.pag.as_ref().map_or(0.0, |pag| pag.scale_at(time));
            let velocity = branches.combine(weight, perturbed)?;
            let done = index + 1 - start;
            let clean = clean_estimate(&latents, &velocity, sampler.sigmas()[index])?;
            latents = sampler.step(index, &velocity, &latents)?;
            check_finite(&latents, "denoise", &format!("step {done}"))?;
            clock.step(control);
            let done = Done {
                index: done,
                total: steps - start,
                latents: &latents,
                clean: &clean,
            };
            after(&done, control)?;
        }
        Ok(latents)
    }

    /// Consistency steps. `latents` `[B, h, w, C]` stand at the first angle; the result is clean, divided by σ_d.
    /// Every step draws noise, also the last, so that the stream of random numbers is the reference's.
    pub(super) fn run_scm(
        &self,
        scm: &Scm,
        latents: Tensor,
        guidance: Option<f32>,
        generator: &mut TorchGenerator,
        control: &mut Control,
        after: AfterStep,
    ) -> Result<Tensor> {
        let steps = scm.steps();
        control.send(Event::Stage {
            name: "denoise",
            total: steps,
        });
        let mut clock = StepClock::new(steps);
        let shape = latents.dims4()?;
        let unscale = 1.0 / f64::from(scm.sigma_data());
        let mut latents = latents;
        let mut clean = latents.clone();
        for index in 0..steps {
            control.check()?;
            let input = scm.model_input(index, &latents)?;
            let velocity = self
                .velocities(&input, scm.model_time(index), guidance, control)?
                .conditional;
            let prediction = scm.prediction(index, &input, &velocity)?;
            let noise = draw(generator, shape)?;
            (latents, clean) = scm.step(index, &prediction, &latents, &noise)?;
            check_finite(&clean, "denoise", &format!("step {}", index + 1))?;
            clock.step(control);
            clean = clean.affine(unscale, 0.0)?;
            let done = Done {
                index: index + 1,
                total: steps,
                latents: &latents,
                clean: &clean,
            };
            after(&done, control)?;
        }
        Ok(clean)
    }
}

fn chunk(rows: &[Row], job: &Job) -> Result<Chunk> {
    let join = |contexts: &Contexts| -> Result<CaptionContext> {
        let parts: Vec<_> = rows
            .iter()
            .map(|row| contexts.of(row, job.images_per_prompt))
            .collect();
        Ok(CaptionContext::concat(&parts)?)
    };
    let images: Vec<u32> = rows.iter().map(|row| row.image as u32).collect();
    let first = rows.iter().position(|row| row.branch == Branch::Perturbed);
    Ok(Chunk {
        images: Tensor::new(images)?,
        count: rows.len(),
        caption: join(&job.contexts)?,
        control_caption: job.control_contexts.as_ref().map(join).transpose()?,
        perturbed: first.map(|first| first..rows.len()),
    })
}

/// Unit noise `[B, h, w, C]`, drawn in the order of `[B, C, h, w]`.
pub(super) fn draw(
    generator: &mut TorchGenerator,
    shape: (usize, usize, usize, usize),
) -> Result<Tensor> {
    let (batch, height, width, channels) = shape;
    from_planes(
        generator.randn(batch * channels * height * width),
        (batch, channels, height, width),
    )
}

/// Values in the order of `[B, C, h, w]` as a tensor `[B, h, w, C]`.
pub(super) fn from_planes(values: Vec<f32>, shape: (usize, usize, usize, usize)) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape)?
        .permute((0, 2, 3, 1))?
        .contiguous()?)
}
