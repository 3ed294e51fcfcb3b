//! What an update minimises, by what the network predicts.

use std::ops::Range;

use brisk_models::class_conditional::sampler::noise_factors;
use brisk_models::class_conditional::{
    ClassConditionalConfig, ClassConditionalTransformer, Scheduler,
};
use brisk_nn::Tensor;

use crate::error::Result;
use crate::latents::Latents;
use crate::loss::{self, Loss};
use crate::objectives::diffusion::{Noised, Process};
use crate::rng::Rng;

/// How latents are noised, and what the network is asked.
pub(super) enum Objective {
    /// A UViT is asked for the noise: factors of the clean value and of the noise at the times 1 to 1000.
    Noise(Vec<[f64; 2]>),
    /// A DiT is asked for the noise, and where its variance lies.
    Variance(Process),
    /// With flow the velocity from noise at time 0 to the latent at time 1.
    Flow,
}

/// An update's samples.
pub(super) struct Batch {
    /// What the network sees, sample after sample.
    input: Vec<f32>,
    /// What it is asked for.
    target: Vec<f32>,
    /// The clean latents, where the bound of the variance needs them.
    clean: Vec<f32>,
    /// One a sample.
    times: Vec<f32>,
    classes: Vec<u32>,
}

impl Objective {
    /// That of a configuration.
    pub fn of(config: &ClassConditionalConfig) -> Self {
        match config.eval_scheduler {
            Scheduler::DpmSolver => Self::Noise(noise_factors()),
            Scheduler::GaussianDiffusion => Self::Variance(Process::linear()),
            Scheduler::Dopri5 | Scheduler::Heun2 | Scheduler::Stochastic => Self::Flow,
        }
    }

    /// The samples of an update: latents at `slots` with their classes, of which some are left out.
    ///
    /// # Errors
    /// None that a configuration gives which was checked.
    pub fn batch(
        &self,
        config: &ClassConditionalConfig,
        latents: &Latents,
        classes: &[u32],
        slots: &[usize],
        rng: &mut Rng,
    ) -> Result<Batch> {
        let each = config.input_size * config.input_size * config.in_channels;
        let values = slots.len() * each;
        let mut batch = Batch {
            input: Vec::with_capacity(values),
            target: Vec::with_capacity(values),
            clean: Vec::new(),
            times: Vec::with_capacity(slots.len()),
            classes: Vec::with_capacity(slots.len()),
        };
        for slot in slots {
            let none = config
                .null_class()
                .filter(|_| rng.chance(config.class_dropout_prob));
            batch.classes.push(none.unwrap_or(classes[*slot]));
            let clean = latents.row(*slot);
            match self {
                Self::Noise(factors) => {
                    let at = rng.below(factors.len());
                    let [own, other] = factors[at].map(|factor| factor as f32);
                    let noise = rng.normals(each);
                    batch.times.push((at + 1) as f32);
                    let mixed = clean.iter().zip(&noise).map(|(x, e)| own * x + other * e);
                    batch.input.extend(mixed);
                    batch.target.extend(noise);
                }
                Self::Variance(process) => {
                    let time = rng.below(Process::TIMES);
                    let noise = rng.normals(each);
                    batch.times.push(time as f32);
                    batch.input.extend(process.noisy(&Noised {
                        width: each,
                        clean,
                        noise: &noise,
                        times: &[time],
                    })?);
                    batch.target.extend(noise);
                    batch.clean.extend_from_slice(clean);
                }
                Self::Flow => {
                    let time = rng.uniform() as f32;
                    let noise = rng.normals(each);
                    batch.times.push(time);
                    for (x, e) in clean.iter().zip(noise) {
                        batch.input.push(time * x + (1.0 - time) * e);
                        batch.target.push(x - e);
                    }
                }
            }
        }
        Ok(batch)
    }

    /// The mean loss of some of the samples.
    ///
    /// # Errors
    /// Those of the network.
    pub fn loss(
        &self,
        network: &ClassConditionalTransformer,
        batch: &Batch,
        part: Range<usize>,
    ) -> Result<Loss> {
        let config = network.config();
        let (side, channels) = (config.input_size, config.in_channels);
        let each = side * side * channels;
        let values = part.start * each..part.end * each;
        let shape = (part.len(), side, side, channels);
        let input = Tensor::from_slice(&batch.input[values.clone()], shape)?;
        let own = &batch.times[part.clone()];
        let times = Tensor::from_slice(own, part.len())?;
        let found = network.forward(&input, &times, &batch.classes[part.clone()])?;
        let target = &batch.target[values.clone()];
        let Self::Variance(process) = self else {
            return loss::mean_square(&found, target);
        };
        // Places of a latent share its time.
        let places = part.len() * side * side;
        let times = own.iter().map(|time| *time as usize);
        let times: Vec<usize> = times
            .flat_map(|time| std::iter::repeat_n(time, side * side))
            .collect();
        let noised = Noised {
            width: channels,
            clean: &batch.clean[values],
            noise: target,
            times: &times,
        };
        process.loss(&found.reshape((places, 2 * channels))?, &noised)
    }
}
