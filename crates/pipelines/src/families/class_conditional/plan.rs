//! A request checked against a model, with everything decided.

use std::ops::Range;
use std::sync::Arc;

use brisk_models::class_conditional::sampler::Sampler;
use brisk_models::class_conditional::{ClassConditionalConfig, Scheduler};

use super::load::Files;
use super::options as own;
use crate::diffusion::DecodeMode;
use crate::diffusion::denoise::rows_at_once;
use crate::error::{Error, Result};
use crate::only_size::check_only_size;
use crate::options::{Latents, Scope, Support, keys};
use crate::request::ImageRequest;

/// A request with every decision made.
#[derive(Debug, Clone)]
pub(super) struct ClassPlan {
    /// Prompt, class and seed of each picture.
    pub prompts: Vec<String>,
    pub classes: Vec<u32>,
    pub seeds: Vec<u64>,
    pub guidance: f32,
    pub scheduler: Scheduler,
    pub sampler: Sampler,
    /// As `steps` gives them; none where the way finds them itself.
    pub steps: Option<usize>,
    /// Evaluations of the network for a picture; none where they are found on the way.
    pub evaluations: Option<usize>,
    /// What the sampler starts from, where that is given.
    pub latents: Option<Arc<Latents>>,
    /// Pictures that are drawn at once.
    pub at_once: usize,
    pub decode: DecodeMode,
}

impl ClassPlan {
    /// Pictures in all.
    pub fn images(&self) -> usize {
        self.seeds.len()
    }

    /// Rows of a picture: with its class, and without.
    pub fn branches(&self) -> usize {
        if self.guidance == 1.0 { 1 } else { 2 }
    }

    /// The pictures in groups that are drawn together.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let (images, at_once) = (self.images(), self.at_once);
        (0..images)
            .step_by(at_once)
            .map(move |first| first..(first + at_once).min(images))
    }
}

/// What a network's kind honours.
pub(super) fn support(config: &ClassConditionalConfig) -> &'static Support {
    match config.eval_scheduler.is_flow() {
        true => &own::FLOW,
        false => &own::NOISE,
    }
}

/// A way along a flow, as the option spells it.
pub(super) fn sampler_name(scheduler: Scheduler) -> Option<&'static str> {
    match scheduler {
        Scheduler::Dopri5 => Some("dopri5"),
        Scheduler::Heun2 => Some("heun2"),
        Scheduler::Stochastic => Some("sde"),
        Scheduler::DpmSolver | Scheduler::GaussianDiffusion => None,
    }
}

/// Checks a request against a model and decides what it leaves open, all but how pictures are decoded.
pub(super) fn plan(request: &ImageRequest, files: &Files) -> Result<ClassPlan> {
    let asked = &request.options;
    let config = &files.transformer.config;
    support(config).check(&files.label, Scope::Request, asked)?;
    request.check()?;
    check_size(request, files)?;
    let pictures = request.planned_images();
    let classes = pictures
        .iter()
        .map(|picture| files.classes.of_prompt(&picture.prompt))
        .collect::<Result<Vec<u32>>>()?;
    let guidance = asked.get(&keys::GUIDANCE).unwrap_or(files.guidance);
    if guidance != 1.0 && config.null_class().is_none() {
        return Err(Error::request(
            keys::GUIDANCE.name(),
            format!(
                "is {guidance}; this network was trained with all classes there (`class_dropout_prob` is 0) and has none \
                 to steer away from; expected 1"
            ),
        ));
    }
    let (scheduler, steps, sampler) = sampler(request, config)?;
    let latents = asked.get(&keys::LATENTS);
    if let Some(latents) = &latents {
        let side = config.input_size;
        latents.check([pictures.len(), config.in_channels, side, side])?;
    }
    let branches = if guidance == 1.0 { 1 } else { 2 };
    let at_once = match scheduler {
        // Its steps are found for all rows together: a picture would depend on those beside it.
        Scheduler::Dopri5 => 1,
        _ => rows_at_once(pictures.len() * branches, config.tokens()) / branches,
    };
    Ok(ClassPlan {
        prompts: pictures.iter().map(|one| one.prompt.clone()).collect(),
        seeds: pictures.iter().map(|one| one.seed).collect(),
        classes,
        guidance,
        scheduler,
        sampler,
        steps: (scheduler != Scheduler::Dopri5).then_some(steps),
        evaluations: sampler.evaluations(),
        latents,
        at_once: at_once.max(1),
        decode: DecodeMode::Auto,
    })
}

fn sampler(
    request: &ImageRequest,
    config: &ClassConditionalConfig,
) -> Result<(Scheduler, usize, Sampler)> {
    let asked = &request.options;
    let scheduler = match asked.get(&own::SAMPLER).as_deref() {
        Some("dopri5") => Scheduler::Dopri5,
        Some("heun2") => Scheduler::Heun2,
        Some("sde") => Scheduler::Stochastic,
        _ => config.eval_scheduler,
    };
    let steps = asked.get(&keys::STEPS);
    if let (Some(steps), Scheduler::Dopri5) = (steps, scheduler) {
        return Err(Error::request(
            keys::STEPS.name(),
            format!(
                "is {steps}, but dopri5 finds its steps itself; leave it out, or use `{}` heun2",
                own::SAMPLER.name()
            ),
        ));
    }
    let usual = match scheduler == config.eval_scheduler {
        true => config.num_inference_steps,
        false => scheduler.usual_steps(),
    };
    let walked = ClassConditionalConfig {
        eval_scheduler: scheduler,
        ..config.clone()
    };
    let steps = steps.unwrap_or(usual);
    let sampler = Sampler::new(&walked, Some(steps))
        .map_err(|error| Error::request(keys::STEPS.name(), error.to_string()))?;
    Ok((scheduler, steps, sampler))
}

fn check_size(request: &ImageRequest, files: &Files) -> Result<()> {
    let reason = format!(
        ": `input_size` {} of {} pixels a cell",
        files.transformer.config.input_size,
        files.vae.config.ratio()
    );
    let keys = [&keys::WIDTH, &keys::HEIGHT];
    check_only_size(&request.options, keys, [files.pixels(); 2], &reason)
}
