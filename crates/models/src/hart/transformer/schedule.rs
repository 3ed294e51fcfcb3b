//! The process that the diffusion head reverses: cosine betas (arXiv 2102.09672), respaced, with a variance
//! that the head chooses between two bounds.

/// Steps of the process that the head was trained on.
const TRAINED: usize = 1000;
/// Largest beta.
const LARGEST: f64 = 0.999;

/// One step from a noisier value to a cleaner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Time that the head is told, 0 to 999.
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

/// The steps of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffusionSchedule {
    steps: Vec<Step>,
}

impl DiffusionSchedule {
    /// `count` steps, 2 to 1000, spread over all of the trained ones.
    pub fn new(count: usize) -> Self {
        let times = times(count.clamp(2, TRAINED));
        let trained = cumulative(&betas());
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

/// Betas of all trained steps.
fn betas() -> Vec<f64> {
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
        let schedule = DiffusionSchedule::new(8);
        let times: Vec<usize> = schedule.steps().iter().map(|step| step.time).collect();
        assert_eq!(times, [0, 143, 285, 428, 571, 714, 856, 999]);
        let last = schedule.steps()[7];
        assert!((last.mean_clean - 0.221_018_57).abs() < 1e-6, "{last:?}");
        assert!((last.log_smallest + 0.050_082_72).abs() < 1e-6, "{last:?}");
        let first = schedule.steps()[0];
        assert!((first.log_smallest + 10.095_741).abs() < 1e-5, "{first:?}");
        assert_eq!((first.mean_clean, first.mean_value), (1.0, 0.0));
    }
}
