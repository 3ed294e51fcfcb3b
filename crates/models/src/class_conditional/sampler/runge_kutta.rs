//! The flow's ordinary equation from time 0 to 1: Dormand and Prince's steps of orders 5 and 4, with the step control of
//! torchdiffeq 0.2.5 (Hairer, Nørsett and Wanner, II.4), and Heun's of order 2.

use brisk_nn::Tensor;

use super::{After, Predict, evenly, weighted};
use crate::{Error, Result};

/// What an error is measured by: this, and that share of the state.
const ABSOLUTE: f64 = 1e-6;
const RELATIVE: f64 = 1e-3;
/// Next steps are this much shorter than the error allows, at most so much longer, at least so much of the last.
const SAFETY: f64 = 0.9;
const LONGEST: f64 = 10.0;
const SHORTEST: f64 = 0.2;
const ORDER: f64 = 5.0;

/// Times of the evaluations within a step after the first, in steps.
const PLACES: [f64; 6] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];
/// What each of them starts from, by the evaluations before it. The last one starts from the result.
const STARTS: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[
        19372.0 / 6561.0,
        -25360.0 / 2187.0,
        64448.0 / 6561.0,
        -212.0 / 729.0,
    ],
    &[
        9017.0 / 3168.0,
        -355.0 / 33.0,
        46732.0 / 5247.0,
        49.0 / 176.0,
        -5103.0 / 18656.0,
    ],
    &[
        35.0 / 384.0,
        0.0,
        500.0 / 1113.0,
        125.0 / 192.0,
        -2187.0 / 6784.0,
        11.0 / 84.0,
    ],
];
/// What the results of orders 5 and 4 differ by.
const ERRORS: [f64; 7] = [
    35.0 / 384.0 - 1951.0 / 21600.0,
    0.0,
    500.0 / 1113.0 - 22642.0 / 50085.0,
    125.0 / 192.0 - 451.0 / 720.0,
    -2187.0 / 6784.0 + 12231.0 / 42400.0,
    11.0 / 84.0 - 649.0 / 6300.0,
    -1.0 / 60.0,
];
/// The state in the middle of a step (Shampine 1986).
const MIDDLE: [f64; 7] = [
    6025192743.0 / 30085553152.0 / 2.0,
    0.0,
    51252292925.0 / 65400821598.0 / 2.0,
    -2691868925.0 / 45128329728.0 / 2.0,
    187940372067.0 / 1594534317056.0 / 2.0,
    -1776094331.0 / 19743644256.0 / 2.0,
    11237099.0 / 235043384.0 / 2.0,
];

/// Steps whose size is found on the way. The last one goes beyond 1, and the state at 1 is interpolated from it.
pub(super) fn dormand_prince(
    latents: &Tensor,
    predict: &mut Predict,
    after: &mut After,
) -> Result<Tensor> {
    let mut x = latents.clone();
    let mut slope = predict(&x, 0.0)?;
    let mut width = first_step(&x, &slope, predict)?;
    let (mut time, mut done) = (0.0, 0);
    loop {
        let end = time + width;
        if !(width.is_finite() && end > time) {
            return Err(Error::NonFinite {
                stage: "sampler".into(),
                layer: format!("a step of {width} at time {time}"),
            });
        }
        let step = Step::take(&x, slope, time, width, predict)?;
        let ratio = step.error_ratio(&x)?;
        if ratio <= 1.0 {
            if end >= 1.0 {
                let found = step.between(&x, (1.0 - time) / width)?;
                after(done, &found)?;
                return Ok(found);
            }
            after(done, &step.result)?;
            done += 1;
            time = end;
            (x, slope) = step.into_end();
        } else {
            slope = step.into_start();
        }
        width *= factor(ratio);
    }
}

/// How long the next step is, in steps of this error.
fn factor(ratio: f64) -> f64 {
    if ratio == 0.0 {
        return LONGEST;
    }
    let shortest = if ratio < 1.0 { 1.0 } else { SHORTEST };
    (SAFETY / ratio.powf(1.0 / ORDER))
        .max(shortest)
        .min(LONGEST)
}

/// The evaluations of a step, and its result.
struct Step {
    slopes: Vec<Tensor>,
    result: Tensor,
    width: f64,
}

impl Step {
    fn take(
        x: &Tensor,
        slope: Tensor,
        time: f64,
        width: f64,
        predict: &mut Predict,
    ) -> Result<Self> {
        let mut slopes = vec![slope];
        let mut result = x.clone();
        for (place, factors) in PLACES.iter().zip(STARTS) {
            result = along(x, &slopes, factors, width)?;
            slopes.push(predict(&result, time + place * width)?);
        }
        Ok(Self {
            slopes,
            result,
            width,
        })
    }

    /// Root mean square of the error, in what is allowed of each value.
    fn error_ratio(&self, x: &Tensor) -> Result<f64> {
        let parts: Vec<(f64, &Tensor)> = ERRORS
            .iter()
            .map(|factor| factor * self.width)
            .zip(&self.slopes)
            .collect();
        let error = values(&weighted(&parts)?)?;
        let pairs = values(x)?.into_iter().zip(values(&self.result)?);
        let allowed: Vec<f64> = pairs
            .map(|(before, after)| ABSOLUTE + RELATIVE * before.abs().max(after.abs()))
            .collect();
        Ok(root_mean_square(&error, &allowed))
    }

    /// The state at a share of the step, by a polynomial of degree 4 through its ends, its middle and its slopes.
    fn between(&self, x: &Tensor, share: f64) -> Result<Tensor> {
        let middle = along(x, &self.slopes, &MIDDLE, self.width)?;
        let powers = [share, share.powi(2), share.powi(3), share.powi(4)];
        let sum = |factors: [f64; 4]| -> f64 {
            powers
                .iter()
                .zip(factors)
                .map(|(power, factor)| power * factor)
                .sum()
        };
        let (first, last) = (&self.slopes[0], &self.slopes[self.slopes.len() - 1]);
        weighted(&[
            (1.0 + sum([0.0, -11.0, 18.0, -8.0]), x),
            (sum([0.0, -5.0, 14.0, -8.0]), &self.result),
            (sum([0.0, 16.0, -32.0, 16.0]), &middle),
            (self.width * sum([1.0, -4.0, 5.0, -2.0]), first),
            (self.width * sum([0.0, 1.0, -3.0, 2.0]), last),
        ])
    }

    /// The result, and the slope there.
    fn into_end(mut self) -> (Tensor, Tensor) {
        let last = self.slopes.len() - 1;
        (self.result, self.slopes.swap_remove(last))
    }

    /// The slope that it began with.
    fn into_start(mut self) -> Tensor {
        self.slopes.swap_remove(0)
    }
}

/// `x` and so much of each slope.
fn along(x: &Tensor, slopes: &[Tensor], factors: &[f64], width: f64) -> Result<Tensor> {
    let mut parts = vec![(1.0, x)];
    let scaled = factors.iter().map(|factor| factor * width);
    parts.extend(scaled.zip(slopes));
    weighted(&parts)
}

/// A first step that an explicit one of order 1 would take at a hundredth of the state.
fn first_step(x: &Tensor, slope: &Tensor, predict: &mut Predict) -> Result<f64> {
    let state = values(x)?;
    let scale: Vec<f64> = state
        .iter()
        .map(|value| ABSOLUTE + RELATIVE * value.abs())
        .collect();
    let before = values(slope)?;
    let size = root_mean_square(&state, &scale);
    let speed = root_mean_square(&before, &scale);
    let trial = match size < 1e-5 || speed < 1e-5 {
        true => 1e-6,
        false => 0.01 * size / speed,
    };
    let next = predict(&weighted(&[(1.0, x), (trial, slope)])?, trial)?;
    let next = values(&next)?;
    let change: Vec<f64> = next.iter().zip(&before).map(|(b, a)| b - a).collect();
    let bend = root_mean_square(&change, &scale) / trial;
    let allowed = match speed <= 1e-15 && bend <= 1e-15 {
        true => (trial * 1e-3).max(1e-6),
        false => (0.01 / speed.max(bend)).powf(1.0 / ORDER),
    };
    Ok(allowed.min(100.0 * trial))
}

fn root_mean_square(values: &[f64], scale: &[f64]) -> f64 {
    let squares = values.iter().zip(scale).map(|(x, s)| (x / s).powi(2));
    (squares.sum::<f64>() / values.len().max(1) as f64).sqrt()
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    let values: Vec<f32> = x.contiguous()?.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// Heun's steps between so many points.
pub(super) fn heun(
    points: usize,
    latents: &Tensor,
    predict: &mut Predict,
    after: &mut After,
) -> Result<Tensor> {
    let times = evenly(0.0, 1.0, points);
    let mut x = latents.clone();
    for (step, pair) in times.windows(2).enumerate() {
        let width = pair[1] - pair[0];
        let first = predict(&x, pair[0])?;
        let second = predict(&weighted(&[(1.0, &x), (width, &first)])?, pair[1])?;
        x = weighted(&[(1.0, &x), (0.5 * width, &first), (0.5 * width, &second)])?;
        after(step, &x)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dx/dt = −k·x has the solution x·e^(−k).
    #[test]
    fn linear_fields_are_integrated() {
        let start = Tensor::new(&[1.0f32, -2.0, 0.25]).unwrap();
        for rate in [0.5f64, 3.0, 20.0] {
            let mut steps = 0;
            let mut predict = |x: &Tensor, _: f64| x.affine(-rate, 0.0);
            let mut after = |step: usize, _: &Tensor| {
                steps = step + 1;
                Ok(())
            };
            let found = dormand_prince(&start, &mut predict, &mut after).unwrap();
            let found = found.to_vec1::<f32>().unwrap();
            for (found, start) in found.iter().zip([1.0, -2.0, 0.25]) {
                let wanted = start * (-rate).exp();
                let off = (f64::from(*found) - wanted).abs();
                assert!(off < 2e-3 * start.abs(), "{rate}: {found} {wanted}");
            }
            assert!(steps < 40, "{rate}: {steps} steps");
        }
    }

    /// A velocity that depends on the time alone: x(1) = x(0) + ∫ 5·t⁴.
    #[test]
    fn times_within_steps_are_right() {
        let start = Tensor::new(&[0.5f32]).unwrap();
        let mut predict = |_: &Tensor, time: f64| Tensor::new(&[(5.0 * time.powi(4)) as f32]);
        let found = dormand_prince(&start, &mut predict, &mut |_, _| Ok(())).unwrap();
        let found = found.to_vec1::<f32>().unwrap()[0];
        assert!((found - 1.5).abs() < 5e-3, "{found}");
        let mut predict = |_: &Tensor, time: f64| Tensor::new(&[(2.0 * time) as f32]);
        let found = heun(4, &start, &mut predict, &mut |_, _| Ok(())).unwrap();
        assert!((found.to_vec1::<f32>().unwrap()[0] - 1.5).abs() < 1e-6);
    }

    #[test]
    fn fields_that_leave_the_numbers_are_refused() {
        let start = Tensor::new(&[1.0f32]).unwrap();
        let mut predict = |x: &Tensor, _: f64| x.affine(f64::NAN, 0.0);
        let refused = dormand_prince(&start, &mut predict, &mut |_, _| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("sampler"), "{refused}");
    }
}
