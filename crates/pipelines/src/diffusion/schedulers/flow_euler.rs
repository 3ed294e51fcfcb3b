//! First-order steps on a shifted grid (`FlowMatchEulerDiscreteScheduler`).

use brisk_nn::Tensor;
use serde_json::json;

use super::{FlowSampler, Settings, linspace, shifted};
use crate::error::Result;

/// What of `FlowMatchEulerDiscreteScheduler` can vary.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowEulerConfig {
    /// Shift of the grid towards noise.
    pub shift: f64,
    /// Number of training times, 1000.
    pub train_timesteps: usize,
}

/// Keys that are read, checked, or matter only with dynamic shifting.
const KNOWN: &[&str] = &[
    "base_image_seq_len",
    "base_shift",
    "max_image_seq_len",
    "max_shift",
    "num_train_timesteps",
    "shift",
    "time_shift_type",
];

impl FlowEulerConfig {
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        settings.only(
            "time_shift_type",
            &json!("exponential"),
            &[json!("exponential"), json!("linear")],
        )?;
        settings.no_others(KNOWN)?;
        Ok(Self {
            shift: settings.number("shift", 1.0)?,
            train_timesteps: settings.train_timesteps()?,
        })
    }
}

/// The sampler. Times are not truncated.
#[derive(Debug, Clone)]
pub struct FlowEuler {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl FlowEuler {
    /// The grid of diffusers, which shifts twice: once for its end point, once for every point.
    pub fn new(config: &FlowEulerConfig, steps: usize) -> Self {
        let train = config.train_timesteps as f64;
        let smallest = f64::from(shifted(1.0 / train, config.shift) as f32);
        let mut sigmas: Vec<f32> = linspace(train, smallest * train, steps)
            .into_iter()
            .map(|time| shifted(time / train, config.shift) as f32)
            .collect();
        let timesteps = sigmas.iter().map(|sigma| sigma * train as f32).collect();
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }
}

impl FlowSampler for FlowEuler {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn step(&mut self, index: usize, velocity: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let width = self.sigmas[index + 1] - self.sigmas[index];
        Ok((sample + velocity.affine(f64::from(width), 0.0)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_of_twenty_steps_shift_three() {
        let sampler = FlowEuler::new(
            &FlowEulerConfig {
                shift: 3.0,
                train_timesteps: 1000,
            },
            20,
        );
        let times = sampler.timesteps();
        for (index, expected) in [
            (0, 1000.0f32),
            (1, 981.8746),
            (2, 962.3857),
            (18, 149.7872),
            (19, 8.928572),
        ] {
            assert!(
                (times[index] - expected).abs() < 1e-4,
                "{index}: {} {expected}",
                times[index]
            );
        }
        assert_eq!(sampler.sigmas()[20], 0.0);
        let one = FlowEuler::new(
            &FlowEulerConfig {
                shift: 3.0,
                train_timesteps: 1000,
            },
            1,
        );
        assert_eq!(
            (one.timesteps(), one.sigmas()),
            (&[1000f32][..], &[1.0f32, 0.0][..])
        );
    }

    #[test]
    fn a_step_moves_along_the_velocity() {
        let mut sampler = FlowEuler::new(
            &FlowEulerConfig {
                shift: 1.0,
                train_timesteps: 1000,
            },
            1,
        );
        let sample = Tensor::new(&[1.0f32, 2.0]).unwrap();
        let velocity = Tensor::new(&[0.5f32, -1.0]).unwrap();
        let moved = sampler
            .step(0, &velocity, &sample)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(moved, [0.5, 3.0]);
    }
}
