//! What a network that reverses Gaussian diffusion learns from: the noise, and by the variational bound the variance
//! (improved DDPM, arXiv 2102.09672), which does not move the noise.

use std::f64::consts::{LN_2, PI};

use brisk_models::diffusion_schedule::{DiffusionSchedule, Step};
use brisk_nn::Tensor;

use crate::error::{Error, Result};
use crate::loss::{Loss, with_gradient};
use crate::tensors;

/// Smallest probability whose logarithm is taken.
const LEAST: f64 = 1e-12;
/// Half of a step between values of 8 bits in −1..1, of which the last step's likelihood is.
const HALF_STEP: f64 = 1.0 / 255.0;
/// From here on a value stands for all beyond it.
const EDGE: f64 = 0.999;

/// The process, at all of its times.
#[derive(Debug)]
pub(crate) struct Process(DiffusionSchedule);

/// Places as they are noised.
pub(crate) struct Noised<'a> {
    /// Channels of a place.
    pub width: usize,
    /// The clean values, place after place.
    pub clean: &'a [f32],
    /// What is added, standard normal.
    pub noise: &'a [f32],
    /// Time of each place.
    pub times: &'a [usize],
}

impl Process {
    /// Times of the process.
    pub const TIMES: usize = 1000;

    /// With betas of a cosine.
    pub fn cosine() -> Self {
        Self(DiffusionSchedule::cosine(Self::TIMES))
    }

    /// With betas of a straight line.
    pub fn linear() -> Self {
        Self(DiffusionSchedule::linear(Self::TIMES))
    }

    fn step(&self, time: usize) -> Result<&Step> {
        let step = self.0.steps().get(time);
        step.ok_or_else(|| Error::Data(format!("time {time}, expected 0 to {}", Self::TIMES - 1)))
    }

    /// Factors of the clean value and of the noise at a time.
    fn factors(step: &Step) -> [f64; 2] {
        let whole = f64::from(step.from_value);
        [1.0 / whole, f64::from(step.from_noise) / whole]
    }

    /// The noisy values.
    ///
    /// # Errors
    /// A time that does not exist.
    pub fn noisy(&self, places: &Noised) -> Result<Vec<f32>> {
        let width = places.width;
        let rows = places
            .clean
            .chunks_exact(width)
            .zip(places.noise.chunks_exact(width));
        let mut noisy = Vec::with_capacity(places.clean.len());
        for ((clean, noise), time) in rows.zip(places.times) {
            let [own, other] = Self::factors(self.step(*time)?).map(|factor| factor as f32);
            noisy.extend(clean.iter().zip(noise).map(|(x, e)| own * x + other * e));
        }
        Ok(noisy)
    }

    /// The loss of a network's `output` `[places, 2·width]`, a mean over places and channels.
    ///
    /// # Errors
    /// An output of another shape, or a time that does not exist.
    pub fn loss(&self, output: &Tensor, places: &Noised) -> Result<Loss> {
        let width = places.width;
        let rows = places.times.len();
        if output.dims() != [rows, 2 * width] {
            return Err(Error::Data(format!(
                "the network gave {:?}, expected [{rows}, {}]",
                output.dims(),
                2 * width
            )));
        }
        let mut values = tensors::values(output)?;
        let scale = 1.0 / (rows * width).max(1) as f64;
        let mut sum = 0.0;
        let given = places
            .clean
            .chunks_exact(width)
            .zip(places.noise.chunks_exact(width));
        for ((row, (clean, noise)), time) in values
            .chunks_exact_mut(2 * width)
            .zip(given)
            .zip(places.times)
        {
            let step = self.step(*time)?;
            let (predicted, shares) = row.split_at_mut(width);
            for (at, (clean, noise)) in clean.iter().zip(noise).enumerate() {
                let missed = f64::from(predicted[at]) - f64::from(*noise);
                let (bound, slope) = bound(step, f64::from(*clean), missed, shares[at].into());
                sum += missed * missed + bound;
                predicted[at] = (2.0 * missed * scale) as f32;
                shares[at] = (slope * scale) as f32;
            }
        }
        with_gradient(output, sum * scale, values)
    }
}

/// What a value adds to the variational bound, in bits, and its slope by `share`, which says from −1 to 1 where
/// the variance lies between its bounds. `missed` is by how much the noise was predicted too large.
fn bound(step: &Step, clean: f64, missed: f64, share: f64) -> (f64, f64) {
    let (low, high) = (f64::from(step.log_smallest), f64::from(step.log_largest));
    let log_variance = low + 0.5 * (share + 1.0) * (high - low);
    // By how much the mean is off: it hangs on the noise through the estimate of the clean value.
    let off = f64::from(step.mean_clean) * f64::from(step.from_noise) * missed;
    let (value, by_variance) = match step.time {
        0 => last_step(clean, clean - off, log_variance),
        _ => {
            let ratio = (low - log_variance).exp();
            let square = off * off * (-log_variance).exp();
            let value = 0.5 * (log_variance - low - 1.0 + ratio + square);
            (value, 0.5 * (1.0 - ratio - square))
        }
    };
    let by_share = 0.5 * (high - low) * by_variance;
    (value / LN_2, by_share / LN_2)
}

/// How unlikely a value of 8 bits is under a normal law around `mean`, and its slope by the logarithm of the
/// variance.
fn last_step(clean: f64, mean: f64, log_variance: f64) -> (f64, f64) {
    let inverse = (-0.5 * log_variance).exp();
    let upper = inverse * (clean - mean + HALF_STEP);
    let lower = inverse * (clean - mean - HALF_STEP);
    let ((above, above_slope), (below, below_slope)) = (cumulative(upper), cumulative(lower));
    // The standard deviation divides both ends, so its logarithm moves each by its own negative.
    let (above_slope, below_slope) = (-upper * above_slope, -lower * below_slope);
    let (share, slope) = if clean < -EDGE {
        (above, above_slope)
    } else if clean > EDGE {
        (1.0 - below, -below_slope)
    } else {
        (above - below, above_slope - below_slope)
    };
    if share < LEAST {
        return (-LEAST.ln(), 0.0);
    }
    (-share.ln(), -0.5 * slope / share)
}

/// The normal law's share below `x`, as it is usually approximated, and its slope.
fn cumulative(x: f64) -> (f64, f64) {
    const CUBE: f64 = 0.044715;
    let factor = (2.0 / PI).sqrt();
    let tanh = (factor * (x + CUBE * x * x * x)).tanh();
    let slope = 0.5 * (1.0 - tanh * tanh) * factor * (1.0 + 3.0 * CUBE * x * x);
    (0.5 * (1.0 + tanh), slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_store::SafetensorsFile;
    use candle_core::{Device, Var};

    fn loss(process: &Process, output: &[f32], places: &Noised) -> (f64, Vec<f32>) {
        let shape = (places.times.len(), 2 * places.width);
        let output = Var::from_vec(output.to_vec(), shape, &Device::Cpu).unwrap();
        let found = process.loss(&output.as_tensor().into(), places).unwrap();
        let store = found.surrogate.backward().unwrap();
        let gradient = store.get(output.as_tensor()).unwrap();
        (found.value, tensors::values(&gradient.into()).unwrap())
    }

    /// Losses, noisy values and gradients are those of the authors' `GaussianDiffusion.training_losses`.
    #[test]
    fn it_is_the_reference_s() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/hart_training/diffusion/golden.safetensors"
        );
        let file = SafetensorsFile::open(path.as_ref()).unwrap();
        let read = |name: &str| {
            let view = brisk_store::TensorSource::view(&file, name)
                .unwrap()
                .unwrap();
            view.to_f32().unwrap()
        };
        let times: Vec<usize> = read("times").iter().map(|time| *time as usize).collect();
        let (clean, noise) = (read("clean"), read("noise"));
        let places = Noised {
            width: clean.len() / times.len(),
            clean: &clean,
            noise: &noise,
            times: &times,
        };
        let process = Process::cosine();
        for (found, wanted) in process.noisy(&places).unwrap().iter().zip(read("noisy")) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
        let (value, gradient) = loss(&process, &read("output"), &places);
        let wanted = f64::from(read("loss")[0]);
        assert!((value - wanted).abs() < 1e-4 * wanted, "{value} {wanted}");
        let wanted = read("gradient");
        let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let off: Vec<f32> = gradient.iter().zip(&wanted).map(|(a, b)| a - b).collect();
        assert!(
            norm(&off) < 1e-8 * norm(&wanted),
            "{} {}",
            norm(&off),
            norm(&wanted)
        );
    }

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = crate::rng::Rng::new(3);
        let times = [0, 0, 1, 40, 500, 999];
        let (clean, noise) = (rng.normals(12), rng.normals(12));
        let clean: Vec<f32> = clean.iter().map(|value| 0.4 * value).collect();
        let output: Vec<f32> = rng.normals(24).iter().map(|value| 0.5 * value).collect();
        let places = Noised {
            width: 2,
            clean: &clean,
            noise: &noise,
            times: &times,
        };
        let process = Process::cosine();
        let (_, gradient) = loss(&process, &output, &places);
        // Where the variance is chosen; that of the noise does not follow the bound.
        for at in (0..24).filter(|at| at % 4 >= 2) {
            let shifted = |by: f32| {
                let mut moved = output.clone();
                moved[at] += by;
                loss(&process, &moved, &places).0
            };
            let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            let off = (slope - f64::from(gradient[at])).abs();
            assert!(
                off < 1e-3 * slope.abs().max(1.0),
                "{at}: {slope} {}",
                gradient[at]
            );
        }
    }
}
