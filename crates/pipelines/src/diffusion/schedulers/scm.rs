//! Few-step consistency sampling on TrigFlow angles (sCM, arXiv 2410.11081; SANA-Sprint, 2503.09641).
//!
//! The sample is x = cos t · x0 + sin t · σ_d · z with t from π/2 (noise) to 0. The network was made for
//! flow time s = sin t / (sin t + cos t), so its input and output are converted on the way.

use brisk_nn::Tensor;
use serde_json::json;

use super::{Settings, check_steps};
use crate::error::{Error, Result};

/// What of `SCMScheduler` can vary.
#[derive(Debug, Clone, PartialEq)]
pub struct ScmConfig {
    /// Standard deviation of the data, 0.5.
    pub sigma_data: f32,
}

/// The first angle of the reference, π/2 rounded up; the exact constant would give other numbers.
#[allow(clippy::approx_constant)]
pub const MAX_ANGLE: f32 = 1.570_80;
/// The second angle of the reference's two-step grid.
const INTERMEDIATE_ANGLE: f32 = 1.3;

impl ScmConfig {
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        settings.only("prediction_type", &json!("trigflow"), &[json!("trigflow")])?;
        settings.no_others(&["num_train_timesteps", "prediction_type", "sigma_data"])?;
        Ok(Self {
            sigma_data: settings.number("sigma_data", 0.5)? as f32,
        })
    }
}

/// The default angles for a number of steps: the two-step grid of the reference, the grid that the
/// paper's search found for four (its first angle is arctan 400), evenly spaced otherwise.
pub fn default_angles(steps: usize) -> Result<Vec<f32>> {
    check_steps(steps)?;
    Ok(match steps {
        2 => vec![MAX_ANGLE, INTERMEDIATE_ANGLE, 0.0],
        4 => vec![400f64.atan() as f32, 1.3, 1.1, 0.6, 0.0],
        _ => uniform_angles(steps),
    })
}

/// Evenly spaced angles from [`MAX_ANGLE`] to 0, the reference's grid for every count but two.
pub fn uniform_angles(steps: usize) -> Vec<f32> {
    // Torch fills a linspace from both ends, in f32.
    let step = -MAX_ANGLE / steps as f32;
    let half = steps.div_ceil(2);
    (0..=steps)
        .map(|index| {
            if index < half {
                MAX_ANGLE + step * index as f32
            } else {
                -(step * (steps - index) as f32)
            }
        })
        .collect()
}

/// Checks a list of angles given by a user: each in (0, π/2], falling, at most 1000. A final 0 is
/// added where it's missing.
pub fn explicit_angles(angles: &[f32]) -> Result<Vec<f32>> {
    let refuse = |message: String| Err(Error::request("scm-timesteps", message));
    let mut angles = angles.to_vec();
    if angles.last() == Some(&0.0) {
        angles.pop();
    }
    if angles.is_empty() {
        return refuse("the list needs at least one angle above 0".to_owned());
    }
    check_steps(angles.len())?;
    for (index, &angle) in angles.iter().enumerate() {
        if !(angle > 0.0 && angle <= MAX_ANGLE) {
            return refuse(format!("angle {angle} is outside (0, {MAX_ANGLE}] radians"));
        }
        if index > 0 && angle >= angles[index - 1] {
            return refuse(format!(
                "angles must fall, but {angle} follows {}",
                angles[index - 1]
            ));
        }
    }
    angles.push(0.0);
    Ok(angles)
}

/// Cuts a grid for image-to-image: keeps the share `strength` of the steps.
///
/// `strength` × steps may be fractional: the first angle then lies between two grid points, so that a
/// higher strength always starts with more noise. Where it is whole, the result is the reference's.
pub fn angles_for_strength(angles: &[f32], strength: f64) -> Vec<f32> {
    let steps = angles.len() - 1;
    let position = (steps as f64 * (1.0 - strength)).clamp(0.0, steps as f64);
    let nearest = position.round();
    if (position - nearest).abs() < 1e-6 {
        return angles[nearest as usize..].to_vec();
    }
    let below = position.floor() as usize;
    let share = (position - below as f64) as f32;
    let mut cut = vec![angles[below] + (angles[below + 1] - angles[below]) * share];
    cut.extend_from_slice(&angles[below + 1..]);
    cut
}

/// The sampler on a fixed list of angles.
#[derive(Debug, Clone)]
pub struct Scm {
    angles: Vec<f32>,
    sigma_data: f32,
}

impl Scm {
    /// A sampler on `angles`, which end with 0.
    pub fn new(config: &ScmConfig, angles: Vec<f32>) -> Self {
        Self {
            angles,
            sigma_data: config.sigma_data,
        }
    }

    /// Number of model evaluations.
    pub fn steps(&self) -> usize {
        self.angles.len().saturating_sub(1)
    }

    /// The angles, one more than there are steps.
    pub fn angles(&self) -> &[f32] {
        &self.angles
    }

    /// Standard deviation of the data.
    pub fn sigma_data(&self) -> f32 {
        self.sigma_data
    }

    /// Flow time s in 0..1 that the model is told at step `index`.
    pub fn model_time(&self, index: usize) -> f32 {
        let (sine, cosine) = (self.angles[index].sin(), self.angles[index].cos());
        sine / (cosine + sine)
    }

    fn norm(time: f32) -> f32 {
        (time * time + (1.0 - time) * (1.0 - time)).sqrt()
    }

    /// The sample as the model wants it.
    pub fn model_input(&self, index: usize, sample: &Tensor) -> Result<Tensor> {
        let norm = Self::norm(self.model_time(index));
        Ok(sample
            .affine(f64::from(1.0 / self.sigma_data), 0.0)?
            .affine(f64::from(norm), 0.0)?)
    }

    /// Turns the model's velocity at `input` into the TrigFlow prediction, times σ_d.
    pub fn prediction(&self, index: usize, input: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let time = self.model_time(index);
        let linear = f64::from(1.0 - 2.0 * time);
        let quadratic = f64::from(1.0 - 2.0 * time + 2.0 * time * time);
        let sum = (input.affine(linear, 0.0)? + velocity.affine(quadratic, 0.0)?)?;
        Ok((sum.affine(f64::from(1.0 / Self::norm(time)), 0.0)?)
            .affine(f64::from(self.sigma_data), 0.0)?)
    }

    /// One step with fresh unit noise: returns the next sample and the clean estimate x̂0.
    pub fn step(
        &self,
        index: usize,
        prediction: &Tensor,
        sample: &Tensor,
        noise: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (angle, next) = (self.angles[index], self.angles[index + 1]);
        let clean = (sample.affine(f64::from(angle.cos()), 0.0)?
            - prediction.affine(f64::from(angle.sin()), 0.0)?)?;
        let noise = noise
            .affine(f64::from(self.sigma_data), 0.0)?
            .affine(f64::from(next.sin()), 0.0)?;
        let moved = (clean.affine(f64::from(next.cos()), 0.0)? + noise)?;
        Ok((moved, clean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(angles: Vec<f32>) -> Scm {
        Scm::new(&ScmConfig { sigma_data: 0.5 }, angles)
    }

    #[test]
    fn default_grids() {
        assert_eq!(default_angles(1).unwrap(), [MAX_ANGLE, 0.0]);
        assert_eq!(default_angles(2).unwrap(), [MAX_ANGLE, 1.3, 0.0]);
        let four = default_angles(4).unwrap();
        assert!((four[0] - 1.5682963).abs() < 1e-6);
        assert_eq!(four[1..], [1.3, 1.1, 0.6, 0.0]);
        let three = default_angles(3).unwrap();
        assert_eq!((three.len(), three[0], three[3]), (4, MAX_ANGLE, 0.0));
        assert!((three[1] - MAX_ANGLE * 2.0 / 3.0).abs() < 1e-6);
        assert!(default_angles(0).is_err());
    }

    #[test]
    fn flow_times() {
        let two = sampler(default_angles(2).unwrap());
        assert!((two.model_time(0) - 1.0000037).abs() < 1e-6);
        assert!((two.model_time(1) - 0.782_708).abs() < 1e-6);
        let four = sampler(uniform_angles(4));
        for (index, expected) in [1.0000037f32, 0.7071084, 0.5000009, 0.2928937]
            .into_iter()
            .enumerate()
        {
            assert!((four.model_time(index) - expected).abs() < 1e-6, "{index}");
        }
    }

    #[test]
    fn one_step_by_hand() {
        let tensor = |value: f32| Tensor::new(&[value]).unwrap();
        let two = sampler(default_angles(2).unwrap());
        let (moved, clean) = two
            .step(0, &tensor(-0.2), &tensor(0.3), &tensor(1.540996))
            .unwrap();
        assert!((clean.to_vec1::<f32>().unwrap()[0] - 0.1999989).abs() < 1e-6);
        assert!((moved.to_vec1::<f32>().unwrap()[0] - 0.7959192).abs() < 1e-6);
    }

    /// F = [(cos t − sin t)·x/σ_d + v] / (sin t + cos t), the closed form of the conversion.
    #[test]
    fn conversion_equals_the_closed_form() {
        let sampler = sampler(vec![1.1, 0.0]);
        let sample = Tensor::new(&[0.3f32, -0.8]).unwrap();
        let velocity = Tensor::new(&[0.5f32, 0.9]).unwrap();
        let input = sampler.model_input(0, &sample).unwrap();
        let found = sampler
            .prediction(0, &input, &velocity)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let (sine, cosine) = 1.1f32.sin_cos();
        for (index, (x, v)) in [(0.3f32, 0.5f32), (-0.8, 0.9)].into_iter().enumerate() {
            let expected = 0.5 * ((cosine - sine) * x / 0.5 + v) / (sine + cosine);
            assert!((found[index] - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn explicit_lists_are_checked() {
        assert_eq!(explicit_angles(&[1.5, 1.0, 0.0]).unwrap(), [1.5, 1.0, 0.0]);
        assert_eq!(explicit_angles(&[1.5, 1.0]).unwrap(), [1.5, 1.0, 0.0]);
        for bad in [
            &[][..],
            &[0.0],
            &[1.0, 1.2],
            &[1.0, 1.0],
            &[1.6],
            &[f32::NAN],
            &[-0.5],
            &[0.5, 0.0, 0.0],
        ] {
            assert!(explicit_angles(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn strength_is_monotone_and_meets_the_reference_on_grid_points() {
        let grid = default_angles(2).unwrap();
        assert_eq!(angles_for_strength(&grid, 1.0), grid);
        assert_eq!(angles_for_strength(&grid, 0.5), [1.3, 0.0]);
        let mut last = 0.0;
        for percent in 1..=100 {
            let first = angles_for_strength(&grid, f64::from(percent) / 100.0)[0];
            assert!(first > last, "{percent} {first} {last}");
            last = first;
        }
        let one = default_angles(1).unwrap();
        assert!((angles_for_strength(&one, 0.25)[0] - 0.25 * MAX_ANGLE).abs() < 1e-6);
    }
}
