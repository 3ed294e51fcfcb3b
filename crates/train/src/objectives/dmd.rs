//! Distribution matching distillation (DMD2, arXiv 2405.14867), for velocities v = noise − clean along
//! x_t = (1 − t)·clean + t·noise, all on slices of one sample.

use brisk_nn::Tensor;

use crate::error::Result;
use crate::loss::{Loss, with_gradient};
use crate::tensors;

/// What a velocity at `t` leads to: x − t·v.
pub(crate) fn clean(x: &[f32], velocity: &[f32], t: f32) -> Vec<f32> {
    let pairs = x.iter().zip(velocity);
    pairs.map(|(x, velocity)| x - t * velocity).collect()
}

/// A sample with noise: (1 − t)·x + t·ε.
pub(crate) fn noised(x: &[f32], noise: &[f32], t: f32) -> Vec<f32> {
    let pairs = x.iter().zip(noise);
    pairs.map(|(x, noise)| (1.0 - t) * x + t * noise).collect()
}

/// A velocity led away from another: v₋ + w·(v − v₋).
pub(crate) fn guided(velocity: &[f32], against: &[f32], strength: f32) -> Vec<f32> {
    let pairs = velocity.iter().zip(against);
    pairs
        .map(|(velocity, against)| against + strength * (velocity - against))
        .collect()
}

/// Where a sample `y` is to go, the other way round: what the critic takes it for less what the teacher does, by the
/// mean distance of the sample from the teacher's; 0 where that is no number.
pub(crate) fn direction(y: &[f32], real: &[f32], fake: &[f32]) -> Vec<f32> {
    let distances = y
        .iter()
        .zip(real)
        .map(|(y, real)| f64::from((y - real).abs()));
    let mean = (distances.sum::<f64>() / y.len().max(1) as f64) as f32;
    let pairs = real.iter().zip(fake);
    let directions = pairs.map(|(real, fake)| (fake - real) / mean);
    directions
        .map(|value| if value.is_finite() { value } else { 0.0 })
        .collect()
}

/// ½·mean of (y − sg(y − g))², whose gradient by `y` is g over the number of values.
pub(crate) fn matching_loss(y: &Tensor, direction: &[f32]) -> Result<Loss> {
    let count = direction.len().max(1);
    let squares: f64 = direction.iter().map(|g| f64::from(*g).powi(2)).sum();
    let scale = 1.0 / count as f32;
    let gradient = direction.iter().map(|g| g * scale).collect();
    with_gradient(y, 0.5 * squares / count as f64, gradient)
}

/// Mean of softplus(sign·x) over logits: −1 where they are to be called real, 1 where fake.
pub(crate) fn softplus_loss(logits: &Tensor, sign: f32) -> Result<Loss> {
    let mut values = tensors::values(logits)?;
    let count = values.len().max(1) as f32;
    let mut sum = 0f64;
    for value in &mut values {
        let x = sign * *value;
        sum += f64::from(x.max(0.0) + (-x.abs()).exp().ln_1p());
        *value = sign / ((1.0 + (-x).exp()) * count);
    }
    with_gradient(logits, sum / f64::from(count), values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use candle_core::{Device, Var};

    fn gradient(point: &Var, loss: &Loss) -> Vec<f32> {
        let store = loss.surrogate.backward().unwrap();
        tensors::values(&store.get(point.as_tensor()).unwrap().into()).unwrap()
    }

    /// The gradient of the loss is the direction, to the last bit: what the loss is made for.
    #[test]
    fn the_gradient_of_the_matching_loss_is_the_direction() {
        let mut rng = Rng::new(3);
        let [y, real, fake] = [16; 3].map(|count| rng.normals(count));
        let direction = direction(&y, &real, &fake);
        let mean: f32 = y.iter().zip(&real).map(|(y, r)| (y - r).abs()).sum::<f32>() / 16.0;
        for ((g, real), fake) in direction.iter().zip(&real).zip(&fake) {
            assert!((g - (fake - real) / mean).abs() < 1e-5);
        }
        let point = Var::from_vec(y.clone(), 16, &Device::Cpu).unwrap();
        let loss = matching_loss(&point.as_tensor().into(), &direction).unwrap();
        // Of 16 values, so that nothing is rounded.
        let exact: Vec<f32> = gradient(&point, &loss).iter().map(|g| 16.0 * g).collect();
        assert_eq!(exact, direction);
        // The same as of ½·mean (y − (y − g))², as it is written.
        let written: f64 = direction.iter().map(|g| f64::from(g * g)).sum::<f64>() / 32.0;
        assert!((loss.value - written).abs() < 1e-6);
    }

    #[test]
    fn a_sample_that_is_the_teachers_goes_nowhere() {
        let y = [1.0, -2.0, 0.5];
        assert_eq!(direction(&y, &y, &y), [0.0; 3]);
        let towards = direction(&y, &[2.0, -2.0, 0.5], &y);
        // Downhill is towards the teacher's.
        assert!(towards[0] < 0.0 && towards[1] == 0.0);
    }

    #[test]
    fn losses_of_logits_and_their_gradients() {
        let start = [-30f32, -1.0, 0.0, 2.0, 30.0];
        for sign in [-1.0, 1.0] {
            let evaluate = |values: &[f32]| {
                let point = Var::from_vec(values.to_vec(), 5, &Device::Cpu).unwrap();
                let loss = softplus_loss(&point.as_tensor().into(), sign).unwrap();
                (loss.value, gradient(&point, &loss))
            };
            let (_, found) = evaluate(&start);
            for (index, found) in found.iter().enumerate() {
                let shifted = |by: f32| {
                    let mut values = start;
                    values[index] += by;
                    evaluate(&values).0
                };
                let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
                assert!(
                    (slope - f64::from(*found)).abs() < 1e-3,
                    "{index}: {slope} {found}"
                );
            }
        }
    }

    #[test]
    fn clean_undoes_noise() {
        let mut rng = Rng::new(5);
        let (x, noise) = (rng.normals(8), rng.normals(8));
        let velocity: Vec<f32> = noise.iter().zip(&x).map(|(noise, x)| noise - x).collect();
        let back = clean(&noised(&x, &noise, 0.7), &velocity, 0.7);
        assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(guided(&x, &noise, 1.0).len(), 8);
        assert!((guided(&x, &noise, 3.0)[0] - (3.0 * x[0] - 2.0 * noise[0])).abs() < 1e-5);
    }
}
