//! Spectral normalisation: a weight divided by an estimate of its largest singular value.

use brisk_nn::Tensor;
use candle_core::Var;

use crate::error::Result;
use crate::tensors;

/// Least norm that a vector is divided by.
const EPSILON: f64 = 1e-12;

/// A weight `[outputs, ..]` of which one singular vector is kept, `[outputs]`.
pub(super) struct SpectralNorm {
    pub weight: Var,
    pub left: Var,
}

/// The two singular vectors of a step of power iteration.
#[derive(Debug, Clone)]
pub(crate) struct Vectors {
    left: Vec<f32>,
    right: Vec<f32>,
}

impl SpectralNorm {
    /// A step of power iteration, whose left vector stays for the next.
    pub fn iterate(&self) -> Result<Vectors> {
        let before = tensors::values(&self.left.as_tensor().into())?;
        let rows = before.len();
        let vectors = tensors::with_values(self.weight.as_tensor(), |weight| {
            let columns = weight.len() / rows.max(1);
            let mut right = vec![0f64; columns];
            for (row, factor) in weight.chunks_exact(columns.max(1)).zip(&before) {
                for (sum, value) in right.iter_mut().zip(row) {
                    *sum += f64::from(*factor) * f64::from(*value);
                }
            }
            let right = unit(&right);
            let left = weight.chunks_exact(columns.max(1)).map(|row| {
                let products = row.iter().zip(&right);
                products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            });
            Vectors {
                left: unit(&left.collect::<Vec<f64>>()),
                right,
            }
        })?;
        tensors::set(&self.left, vectors.left.clone())?;
        Ok(vectors)
    }

    /// The weight as a matrix `[outputs, rest]` over its singular value. Gradients flow through both where it
    /// `learns`.
    pub fn normalised(&self, vectors: &Vectors, learns: bool) -> Result<Tensor> {
        let weight: Tensor = self.weight.as_tensor().into();
        let weight = match learns {
            true => weight,
            false => weight.detach(),
        };
        let matrix = weight.reshape((vectors.left.len(), vectors.right.len()))?;
        let left = Tensor::from_slice(&vectors.left, (1, vectors.left.len()))?;
        let right = Tensor::from_slice(&vectors.right, (vectors.right.len(), 1))?;
        let value = left.matmul(&matrix)?.matmul(&right)?;
        Ok(matrix.broadcast_div(&value)?)
    }
}

/// A vector of length one.
fn unit(vector: &[f64]) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norm = norm.max(EPSILON);
    vector.iter().map(|x| (x / norm) as f32).collect()
}
