//! Losses on slices: the value and its gradient in one pass, then one product that hands the gradient to the graph.

use brisk_nn::Tensor;
use candle_core::Tensor as HostTensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensors;

/// Weights of the parts of the reconstruction loss; each part is a mean over all values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconstructionLoss {
    /// Weight of the absolute difference.
    pub l1: f64,
    /// Weight of the squared difference.
    pub mse: f64,
    /// Weight of the absolute difference of horizontal and vertical neighbours' differences: sharp edges.
    #[serde(default)]
    pub gradient: f64,
}

/// A loss value with the scalar tensor whose gradient with respect to the prediction is the loss's.
pub(crate) struct Loss {
    pub value: f64,
    pub surrogate: HostTensor,
}

impl Loss {
    /// A scalar tensor.
    pub fn of(value: &Tensor) -> Result<Self> {
        Ok(Self {
            value: f64::from(value.to_scalar::<f32>()?),
            surrogate: value.host()?,
        })
    }

    /// Times a weight.
    pub fn scaled(self, weight: f64) -> Result<Self> {
        Ok(Self {
            value: weight * self.value,
            surrogate: (self.surrogate * weight)?,
        })
    }

    /// With a weight of another loss.
    pub fn and(self, other: Self, weight: f64) -> Result<Self> {
        Ok(Self {
            value: self.value + weight * other.value,
            surrogate: (self.surrogate + (other.surrogate * weight)?)?,
        })
    }

    /// With a weight of a scalar tensor.
    pub fn plus(self, other: &Tensor, weight: f64) -> Result<Self> {
        let other = (other * weight)?;
        Ok(Self {
            value: self.value + f64::from(other.to_scalar::<f32>()?),
            surrogate: (self.surrogate + other.host()?)?,
        })
    }
}

/// A loss of `value` whose gradient with respect to `prediction` is `gradient`.
pub(crate) fn with_gradient(prediction: &Tensor, value: f64, gradient: Vec<f32>) -> Result<Loss> {
    let gradient = Tensor::from_vec(gradient, prediction.dims())?;
    Ok(Loss {
        value,
        surrogate: (prediction * gradient)?.sum_all()?.host()?,
    })
}

fn checked(prediction: &Tensor, target: &[f32]) -> Result<Vec<f32>> {
    if prediction.elem_count() != target.len() {
        return Err(Error::Data(format!(
            "the model gave {:?}, which does not match {} target values",
            prediction.dims(),
            target.len()
        )));
    }
    tensors::values(prediction)
}

/// Mean of the squared differences.
pub(crate) fn mean_square(prediction: &Tensor, target: &[f32]) -> Result<Loss> {
    let mut values = checked(prediction, target)?;
    let scale = (2.0 / values.len() as f64) as f32;
    let mut sum = 0f64;
    for (value, target) in values.iter_mut().zip(target) {
        let difference = *value - target;
        sum += f64::from(difference * difference);
        *value = scale * difference;
    }
    let mean = sum / values.len() as f64;
    with_gradient(prediction, mean, values)
}

/// Σ weightᵢ·cross-entropy of row i of `logits` `[n, classes]` with `targets[i]`.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &[u32], weights: &[f32]) -> Result<Loss> {
    let (rows, classes) = logits.dims2()?;
    if rows != targets.len() || rows != weights.len() {
        return Err(Error::Data(format!(
            "the model gave {rows} rows, expected {} targets with {} weights",
            targets.len(),
            weights.len()
        )));
    }
    let mut values = tensors::values(logits)?;
    let mut sum = 0f64;
    for ((row, &target), &weight) in values.chunks_exact_mut(classes).zip(targets).zip(weights) {
        sum += row_cross_entropy(row, target as usize, weight)?;
    }
    with_gradient(logits, sum, values)
}

/// `weight`·cross-entropy of one row of logits, which its gradient replaces.
pub(crate) fn row_cross_entropy(row: &mut [f32], target: usize, weight: f32) -> Result<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let Some(&right) = row.get(target) else {
        let classes = row.len();
        return Err(Error::Data(format!("target {target} of {classes} classes")));
    };
    let mut total = 0f64;
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
        total += f64::from(*value);
    }
    let scale = weight / total as f32;
    row.iter_mut().for_each(|value| *value *= scale);
    row[target] -= weight;
    Ok(f64::from(weight) * (total.ln() - f64::from(right - largest)))
}

/// The reconstruction loss of pictures `[B,H,W,C]`.
pub(crate) fn reconstruction(
    prediction: &Tensor,
    target: &[f32],
    weights: &ReconstructionLoss,
) -> Result<Loss> {
    let (_, height, width, channels) = prediction.dims4()?;
    let mut difference = checked(prediction, target)?;
    for (value, target) in difference.iter_mut().zip(target) {
        *value -= target;
    }
    let count = difference.len();
    let mut gradient = vec![0f32; count];
    let plane = height * width * channels;
    let sums: Vec<f64> = difference
        .par_chunks_exact(plane)
        .zip(gradient.par_chunks_exact_mut(plane))
        .map(|(difference, gradient)| {
            picture_loss(difference, gradient, width * channels, channels, weights)
        })
        .collect();
    let scale = 1.0 / count as f64;
    gradient.iter_mut().for_each(|g| *g *= scale as f32);
    with_gradient(prediction, sums.iter().sum::<f64>() * scale, gradient)
}

/// Adds one picture's gradient, unscaled, and returns the sum of its loss.
fn picture_loss(
    difference: &[f32],
    gradient: &mut [f32],
    row: usize,
    channels: usize,
    weights: &ReconstructionLoss,
) -> f64 {
    let (l1, mse) = (weights.l1 as f32, weights.mse as f32);
    let (mut absolute, mut square) = (0f64, 0f64);
    for (d, g) in difference.iter().zip(gradient.iter_mut()) {
        absolute += f64::from(d.abs());
        square += f64::from(d * d);
        *g = l1 * sign(*d) + 2.0 * mse * d;
    }
    let mut edges = 0f64;
    if weights.gradient != 0.0 {
        let weight = weights.gradient as f32;
        let mut pair = |from: usize, to: usize| {
            let d = difference[to] - difference[from];
            edges += f64::from(d.abs());
            let g = weight * sign(d);
            gradient[to] += g;
            gradient[from] -= g;
        };
        for index in 0..difference.len() {
            if index % row + channels < row {
                pair(index, index + channels);
            }
            if index + row < difference.len() {
                pair(index, index + row);
            }
        }
    }
    weights.l1 * absolute + weights.mse * square + weights.gradient * edges
}

fn sign(value: f32) -> f32 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use brisk_nn::DType;
    use candle_core::{Device, Var};

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::new(4);
        let dims = (2, 3, 4, 3);
        let start = rng.normals(72);
        let target = rng.normals(72);
        let weights = ReconstructionLoss {
            l1: 0.7,
            mse: 1.3,
            gradient: 0.4,
        };
        let variable = |values: &[f32]| Var::from_vec(values.to_vec(), dims, &Device::Cpu).unwrap();
        type Evaluate<'a> = &'a dyn Fn(&Tensor) -> Loss;
        let both: [Evaluate; 2] = [&|x| reconstruction(x, &target, &weights).unwrap(), &|x| {
            mean_square(x, &target).unwrap()
        }];
        for evaluate in both {
            let point = variable(&start);
            let loss = evaluate(&point.as_tensor().into());
            let store = loss.surrogate.backward().unwrap();
            let gradient = tensors::values(&store.get(point.as_tensor()).unwrap().into()).unwrap();
            for index in [0, 5, 17, 40, 71] {
                let shifted = |by: f32| {
                    let mut values = start.clone();
                    values[index] += by;
                    evaluate(&variable(&values).as_tensor().into()).value
                };
                let slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
                let error = (slope - f64::from(gradient[index])).abs();
                assert!(error < 2e-4, "{index}: {slope} {}", gradient[index]);
            }
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient() {
        let mut rng = Rng::new(9);
        let start = rng.normals(12);
        let (targets, weights) = ([1u32, 3, 0], [0.5f32, 0.0, 2.0]);
        let evaluate = |values: &[f32]| {
            let point = Var::from_vec(values.to_vec(), (3, 4), &Device::Cpu).unwrap();
            let loss = cross_entropy(&point.as_tensor().into(), &targets, &weights).unwrap();
            let store = loss.surrogate.backward().unwrap();
            let gradient = tensors::values(&store.get(point.as_tensor()).unwrap().into()).unwrap();
            (loss.value, gradient)
        };
        let (value, gradient) = evaluate(&start);
        let plain: f64 = (0..3)
            .map(|row| {
                let row_values = &start[row * 4..row * 4 + 4];
                let sum: f64 = row_values.iter().map(|v| f64::from(*v).exp()).sum();
                let right = f64::from(row_values[targets[row] as usize]);
                f64::from(weights[row]) * (sum.ln() - right)
            })
            .sum();
        assert!((value - plain).abs() < 1e-6);
        for index in 0..12 {
            let shifted = |by: f32| {
                let mut values = start.clone();
                values[index] += by;
                evaluate(&values).0
            };
            let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[index])).abs() < 1e-3, "{index}");
        }
        let x = Tensor::zeros((1, 2), DType::F32).unwrap();
        assert!(cross_entropy(&x, &[2], &[1.0]).is_err());
        assert!(cross_entropy(&x, &[0, 1], &[1.0, 1.0]).is_err());
        let uniform = cross_entropy(&x, &[1], &[1.0]).unwrap().value;
        assert!(
            (uniform - 2f64.ln()).abs() < 1e-9,
            "a uniform guess costs ln V"
        );
    }

    #[test]
    fn a_target_of_another_size_is_refused() {
        let x = Tensor::zeros((1, 2), DType::F32).unwrap();
        assert!(matches!(mean_square(&x, &[0.0; 3]), Err(Error::Data(_))));
    }
}
