//! The distance of two samples by the normal laws of features, and fixed random directions of features: the same numbers
//! wherever they are computed.

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Features of a sample.
pub(super) const FEATURES: usize = 48;
/// Random directions that features are made of.
const HIDDEN: usize = 192;
/// Seed of the space.
const SEED: u64 = 0x7370_6163_6521;
/// Sweeps over all pairs of axes at most.
const SWEEPS: usize = 60;

/// Two layers of random weights with a rectifier between.
pub(super) struct RandomFeatures {
    values: usize,
    /// `[HIDDEN, values]`, `[FEATURES, HIDDEN]`
    layers: [Vec<f32>; 2],
}

impl RandomFeatures {
    /// Of samples of so many values.
    pub fn new(values: usize) -> Self {
        let mut rng = Rng::new(SEED);
        let mut layer = |outputs: usize, inputs: usize| -> Vec<f32> {
            let scale = (inputs as f32).sqrt().recip();
            let normals = rng.normals(outputs * inputs);
            normals.into_iter().map(|value| scale * value).collect()
        };
        Self {
            values,
            layers: [layer(HIDDEN, values), layer(FEATURES, HIDDEN)],
        }
    }

    /// Of one sample.
    pub fn of(&self, values: &[f32]) -> Vec<f64> {
        let [first, second] = &self.layers;
        let product =
            |row: &[f32], x: &[f32]| -> f32 { row.iter().zip(x).map(|(a, b)| a * b).sum() };
        let hidden: Vec<f32> = first
            .chunks_exact(self.values)
            .map(|row| product(row, values).max(0.0))
            .collect();
        let rows = second.chunks_exact(HIDDEN);
        rows.map(|row| f64::from(product(row, &hidden))).collect()
    }
}

/// |μ₁ − μ₂|² + tr(C₁ + C₂ − 2·(C₁C₂)^½) of two samples of features.
///
/// # Errors
/// Samples of fewer than two.
pub(super) fn frechet_distance(first: &[Vec<f64>], second: &[Vec<f64>]) -> Result<f64> {
    let (mean, covariance) = moments(first)?;
    let (other_mean, other) = moments(second)?;
    let size = mean.len();
    let apart: f64 = mean
        .iter()
        .zip(&other_mean)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let trace = |matrix: &[f64]| -> f64 { (0..size).map(|i| matrix[i * size + i]).sum() };
    // The square root of C₁C₂ has the trace of that of C₁^½·C₂·C₁^½, which is symmetric.
    let (values, vectors) = eigen(&covariance, size);
    let mut root = vec![0.0; size * size];
    for (axis, value) in values.iter().enumerate() {
        let scale = value.max(0.0).sqrt();
        for row in 0..size {
            for column in 0..size {
                root[row * size + column] +=
                    scale * vectors[row * size + axis] * vectors[column * size + axis];
            }
        }
    }
    let inner = product(&product(&root, &other, size), &root, size);
    let roots: f64 = eigen(&inner, size)
        .0
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .sum();
    Ok(apart + trace(&covariance) + trace(&other) - 2.0 * roots)
}

fn product(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut sum = vec![0.0; size * size];
    for row in 0..size {
        for inner in 0..size {
            let factor = a[row * size + inner];
            for column in 0..size {
                sum[row * size + column] += factor * b[inner * size + column];
            }
        }
    }
    sum
}

/// Mean and covariance.
fn moments(sample: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)> {
    let [first, _, ..] = sample else {
        return Err(Error::Data(
            "a distance of samples needs at least two of each".to_owned(),
        ));
    };
    let (size, count) = (first.len(), sample.len() as f64);
    let mut mean = vec![0.0; size];
    for row in sample {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += value / count;
        }
    }
    let mut covariance = vec![0.0; size * size];
    for row in sample {
        let apart: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
        for (i, a) in apart.iter().enumerate() {
            for (j, b) in apart.iter().enumerate() {
                covariance[i * size + j] += a * b / (count - 1.0);
            }
        }
    }
    Ok((mean, covariance))
}

/// Eigenvalues and, column by column, vectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(matrix: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = matrix.to_vec();
    let mut vectors = vec![0.0; size * size];
    (0..size).for_each(|i| vectors[i * size + i] = 1.0);
    let norm: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..SWEEPS {
        let mut off = 0.0;
        for p in 0..size {
            for q in p + 1..size {
                let value = a[p * size + q];
                off += value * value;
                if value == 0.0 {
                    continue;
                }
                let theta = (a[q * size + q] - a[p * size + p]) / (2.0 * value);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let cos = 1.0 / (t * t + 1.0).sqrt();
                let sin = t * cos;
                for k in 0..size {
                    let (x, y) = (a[k * size + p], a[k * size + q]);
                    a[k * size + p] = cos * x - sin * y;
                    a[k * size + q] = sin * x + cos * y;
                }
                for k in 0..size {
                    let (x, y) = (a[p * size + k], a[q * size + k]);
                    a[p * size + k] = cos * x - sin * y;
                    a[q * size + k] = sin * x + cos * y;
                    let (x, y) = (vectors[k * size + p], vectors[k * size + q]);
                    vectors[k * size + p] = cos * x - sin * y;
                    vectors[k * size + q] = sin * x + cos * y;
                }
            }
        }
        if off <= 1e-24 * norm {
            break;
        }
    }
    ((0..size).map(|i| a[i * size + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_rebuild_the_matrix() {
        let size = 6;
        let mut rng = Rng::new(2);
        let values: Vec<f64> = rng
            .normals(size * size)
            .into_iter()
            .map(f64::from)
            .collect();
        let at = |i: usize, j: usize| values[i * size + j] + values[j * size + i];
        let matrix: Vec<f64> = (0..size * size).map(|k| at(k / size, k % size)).collect();
        let (found, vectors) = eigen(&matrix, size);
        for i in 0..size {
            for j in 0..size {
                let sum: f64 = (0..size)
                    .map(|axis| found[axis] * vectors[i * size + axis] * vectors[j * size + axis])
                    .sum();
                assert!((sum - matrix[i * size + j]).abs() < 1e-9);
            }
        }
    }

    /// Of normal laws with diagonal covariances the distance is known.
    #[test]
    fn distances_of_known_laws() {
        let mut rng = Rng::new(7);
        let mut sample = |deviations: [f64; 3], shift: f64| -> Vec<Vec<f64>> {
            let rows = (0..40_000).map(|_| rng.normals(3));
            let row = |row: Vec<f32>| {
                let pairs = row.iter().zip(deviations);
                pairs
                    .map(|(x, deviation)| shift + deviation * f64::from(*x))
                    .collect()
            };
            rows.map(row).collect()
        };
        let (a, b) = (sample([1.0, 2.0, 0.5], 0.0), sample([1.0, 1.0, 1.5], 0.5));
        let distance = frechet_distance(&a, &b).unwrap();
        let wanted = 3.0 * 0.25 + 0.0 + 1.0 + 1.0;
        assert!((distance - wanted).abs() < 0.06, "{distance}");
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-9);
        assert!(frechet_distance(&a[..1], &b).is_err());
    }

    #[test]
    fn features_are_the_same_everywhere() {
        let features = RandomFeatures::new(10);
        let x = Rng::new(1).normals(10);
        assert_eq!(features.of(&x), RandomFeatures::new(10).of(&x));
        assert_eq!(features.of(&x).len(), FEATURES);
    }
}
