//! The authors' ways from noise to a latent, by what a network was trained to predict.
//!
//! A UViT predicts noise and is walked by [`DpmSolver`]; a DiT predicts noise and its variance, for ancestral steps; with flow
//! both predict a velocity, which is integrated from noise at time 0 to the latent at time 1, with or without noise on the way.

mod ancestral;
mod dpm_solver;
mod guided;
mod runge_kutta;
mod stochastic;

use brisk_nn::{Tensor, Trace, check_finite};

pub use dpm_solver::{DpmSolver, noise_factors};
pub use guided::Guided;

use super::{ClassConditionalConfig, Scheduler};
use crate::{Error, Result};

/// What a network predicts from a state at a time.
type Predict<'a> = dyn FnMut(&Tensor, f64) -> Result<Tensor> + 'a;
/// Gives the normal values, of the latents' shape, that are drawn as the k-th.
type Noise<'a> = dyn FnMut(usize) -> Result<Tensor> + 'a;
/// Sees the state after each step, the first of which is 0.
type After<'a> = dyn FnMut(usize, &Tensor) -> Result<()> + 'a;

/// Most steps of any of them.
pub const MOST_STEPS: usize = 10_000;

/// A way from noise to a latent, in so many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    scheduler: Scheduler,
    steps: usize,
}

impl Sampler {
    /// The way that a configuration names, in `steps` or in as many as it says: evaluations of
    /// [`Scheduler::DpmSolver`], steps of [`Scheduler::GaussianDiffusion`] and [`Scheduler::Stochastic`], points from 0 to 1
    /// of [`Scheduler::Heun2`]. [`Scheduler::Dopri5`] finds its steps itself.
    ///
    /// # Errors
    /// A number of steps that the way cannot be gone in.
    pub fn new(config: &ClassConditionalConfig, steps: Option<usize>) -> Result<Self> {
        let scheduler = config.eval_scheduler;
        let (least, most) = match scheduler {
            Scheduler::DpmSolver | Scheduler::Dopri5 => (1, MOST_STEPS),
            Scheduler::GaussianDiffusion => (2, 1000),
            Scheduler::Heun2 | Scheduler::Stochastic => (2, MOST_STEPS),
        };
        let steps = steps.unwrap_or(config.num_inference_steps);
        if !(least..=most).contains(&steps) {
            return Err(Error::Config(format!(
                "{steps} steps of {}; expected {least} to {most}",
                scheduler.name()
            )));
        }
        Ok(Self { scheduler, steps })
    }

    /// How often noise is drawn on the way.
    pub fn draws(&self) -> usize {
        match self.scheduler.draws_noise() {
            true => self.steps - 1,
            false => 0,
        }
    }

    /// How often the network is evaluated; none where that is found on the way.
    pub fn evaluations(&self) -> Option<usize> {
        match self.scheduler {
            Scheduler::Dopri5 => None,
            Scheduler::Heun2 => Some(2 * (self.steps - 1)),
            _ => Some(self.steps),
        }
    }

    /// From `latents` `[B,n,n,C]` of standard normal noise to what the network draws, in the scale that it sees. `noise`
    /// gives the k-th draw on the way ([`Self::draws`]), `after` sees the state after each step, and `trace` every
    /// evaluation. [`Scheduler::Dopri5`] finds its steps for all rows together, as the authors' does.
    ///
    /// # Errors
    /// As [`ClassConditionalTransformer::forward`](super::ClassConditionalTransformer::forward), those of `noise` and
    /// `after`, or a state that is not finite.
    pub fn run(
        &self,
        model: &Guided,
        latents: &Tensor,
        noise: &mut Noise,
        after: &mut After,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let mut predict = |x: &Tensor, time: f64| model.predict(x, time as f32, trace);
        let mut after = |step: usize, x: &Tensor| {
            check_finite(x, "sampler", &format!("step {step}"))?;
            after(step, x)
        };
        match self.scheduler {
            Scheduler::DpmSolver => {
                DpmSolver::new(self.steps).run(latents, &mut predict, &mut after)
            }
            Scheduler::GaussianDiffusion => {
                ancestral::run(self.steps, latents, &mut predict, noise, &mut after)
            }
            Scheduler::Dopri5 => runge_kutta::dormand_prince(latents, &mut predict, &mut after),
            Scheduler::Heun2 => runge_kutta::heun(self.steps, latents, &mut predict, &mut after),
            Scheduler::Stochastic => {
                stochastic::run(self.steps, latents, &mut predict, noise, &mut after)
            }
        }
    }
}

/// `count` numbers from `first` to `last`.
fn evenly(first: f64, last: f64, count: usize) -> Vec<f64> {
    let gaps = count.saturating_sub(1).max(1) as f64;
    let step = (last - first) / gaps;
    (0..count).map(|at| first + step * at as f64).collect()
}

/// The sum of tensors, each with a factor.
fn weighted(parts: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut parts = parts.iter().filter(|(factor, _)| *factor != 0.0);
    let Some((factor, first)) = parts.next() else {
        return Err(Error::Shape("a sum of nothing".into()));
    };
    let mut sum = first.affine(*factor, 0.0)?;
    for (factor, part) in parts {
        sum = (sum + part.affine(*factor, 0.0)?)?;
    }
    Ok(sum)
}
