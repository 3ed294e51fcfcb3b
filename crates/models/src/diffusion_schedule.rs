//! Gaussian diffusion that a network reverses step by step (improved DDPM, arXiv 2102.09672): betas of a schedule,
//! respaced, with a variance that the network chooses between two bounds.

use brisk_nn::Tensor;

use crate::Result;

/// Steps of the process that networks were trained on.
const TRAINED: usize = 1000;
/// Largest beta of the cosine.
const LARGEST: f64 = 0.999;
/// First and last of linear betas.
const LINEAR: [f64; 2] = [1e-4, 2e-2];

/// One step from a noisier value to a cleaner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Time that the network is told, 0 to 999.
    pub time: usize,
    /// `√(1/ᾱ)`, factor of the value in the estimate of the clean one.
    pub from_value: f32,
    /// `√(1/ᾱ − 1)`, factor of the predicted noise in it.
    pub from_noise: f32,
    /// Factor of the clean value in the mean.
    pub mean_clean: f32,
    /// Factor of the value in the mean.
    pub mean_value: f32,
    /// Logarithm of the smallest variance, that of the posterior.
    pub log_smallest: f32,
    /// Logarithm of the largest, the step's beta.
    pub log_largest: f32,
}

impl Step {
    /// The clean value that `noise`, as predicted, leaves of `x`.
    ///
    /// # Errors
    /// Other shapes.
    pub fn clean(&self, x: &Tensor, noise: &Tensor) -> Result<Tensor> {
        (x * f64::from(self.from_value))? - (noise * f64::from(self.from_noise))?
    }

    /// Mean of the step's distribution, between `x` and the clean value.
    ///
    /// # Errors
    /// Other shapes.
    pub fn mean(&self, x: &Tensor, clean: &Tensor) -> Result<Tensor> {
        (clean * f64::from(self.mean_clean))? + (x * f64::from(self.mean_value))?
    }

    /// Its deviation, by where the network puts the logarithm of the variance: −1 is the smallest, 1 the largest.
    ///
    /// # Errors
    /// None that finite values give.
    pub fn deviation(&self, chosen: &Tensor) -> Result<Tensor> {
        let share = chosen.affine(0.5, 0.5)?;
        let (low, high) = (f64::from(self.log_smallest), f64::from(self.log_largest));
        share.affine(0.5 * (high - low), 0.5 * low)?.exp()
    }
}

/// The steps of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffusionSchedule {
    steps: Vec<Step>,
}

impl DiffusionSchedule {
    /// `count` steps, 2 to 1000, spread over all of those trained with cosine betas.
    pub fn cosine(count: usize) -> Self {
        Self::respaced(count, &cosine_betas())
    }

    /// As [`Self::cosine`], of those trained with betas of a straight line, as ADM and DiT have them.
    pub fn linear(count: usize) -> Self {
        let [first, last] = LINEAR;
        let step = (last - first) / (TRAINED - 1) as f64;
        let betas: Vec<f64> = (0..TRAINED).map(|at| first + step * at as f64).collect();
        Self::respaced(count, &betas)
    }

    fn respaced(count: usize, betas: &[f64]) -> Self {
        let times = times(count.clamp(2, TRAINED));
        let trained = cumulative(betas);
        let kept: Vec<f64> = times.iter().map(|time| trained[*time]).collect();
        let before = |index: usize| if index == 0 { 1.0 } else { kept[index - 1] };
        let betas: Vec<f64> = (0..kept.len())
            .map(|index| 1.0 - kept[index] / before(index))
            .collect();
        let kept = cumulative(&betas);
        let before = |index: usize| if index == 0 { 1.0 } else { kept[index - 1] };
        let variance = |index: usize| betas[index] * (1.0 - before(index)) / (1.0 - kept[index]);
        let steps = times.iter().enumerate().map(|(index, time)| {
            let (beta, remains) = (betas[index], kept[index]);
            Step {
                time: *time,
                from_value: (1.0 / remains).sqrt() as f32,
                from_noise: (1.0 / remains - 1.0).sqrt() as f32,
                mean_clean: (beta * before(index).sqrt() / (1.0 - remains)) as f32,
                mean_value: ((1.0 - before(index)) * (1.0 - beta).sqrt() / (1.0 - remains)) as f32,
                // The first one's own is zero.
                log_smallest: variance(index.max(1)).ln() as f32,
                log_largest: beta.ln() as f32,
            }
        });
        Self {
            steps: steps.collect(),
        }
    }

    /// The steps, the cleanest first; sampling goes through them from the last.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Betas of all trained steps, by a cosine.
fn cosine_betas() -> Vec<f64> {
    let remains = |time: f64| {
        let angle = (time + 0.008) / 1.008 * std::f64::consts::PI / 2.0;
        angle.cos() * angle.cos()
    };
    let all = TRAINED as f64;
    (0..TRAINED)
        .map(|step| {
            let (start, end) = (step as f64 / all, (step + 1) as f64 / all);
            (1.0 - remains(end) / remains(start)).min(LARGEST)
        })
        .collect()
}

/// What remains of the clean value after each step: running products of `1 − β`.
fn cumulative(betas: &[f64]) -> Vec<f64> {
    let products = betas.iter().scan(1.0, |product, beta| {
        *product *= 1.0 - beta;
        Some(*product)
    });
    products.collect()
}

/// `count` of the trained times, both ends among them; each is rounded half to even.
fn times(count: usize) -> Vec<usize> {
    let stride = (TRAINED - 1) as f64 / (count - 1) as f64;
    let places = std::iter::successors(Some(0.0f64), |place| Some(place + stride));
    places
        .take(count)
        .map(|place| place.round_ties_even() as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_steps_are_those_published() {
        let schedule = DiffusionSchedule::cosine(8);
        let times: Vec<usize> = schedule.steps().iter().map(|step| step.time).collect();
        assert_eq!(times, [0, 143, 285, 428, 571, 714, 856, 999]);
        let last = schedule.steps()[7];
        assert!((last.mean_clean - 0.221_018_57).abs() < 1e-6, "{last:?}");
        assert!((last.log_smallest + 0.050_082_72).abs() < 1e-6, "{last:?}");
        let first = schedule.steps()[0];
        assert!((first.log_smallest + 10.095_741).abs() < 1e-5, "{first:?}");
        assert_eq!((first.mean_clean, first.mean_value), (1.0, 0.0));
    }

    /// All steps of a straight line: what remains at the end is the product of 1 − β.
    #[test]
    fn linear_betas_are_those_of_ddpm() {
        let schedule = DiffusionSchedule::linear(1000);
        let last = schedule.steps()[999];
        assert!((last.log_largest - 0.02f32.ln()).abs() < 1e-6, "{last:?}");
        let remains = 1.0 / (last.from_value * last.from_value);
        assert!((remains - 4.0358e-5).abs() < 1e-8, "{remains}");
        let times = |count: usize| -> Vec<usize> {
            let schedule = DiffusionSchedule::linear(count);
            schedule.steps().iter().map(|step| step.time).collect()
        };
        assert_eq!(times(5), [0, 250, 500, 749, 999]);
        assert_eq!(times(250)[..4], [0, 4, 8, 12]);
    }
}
