//! RMS normalisation.

use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// Which parameters an [`RmsNorm`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmsNormKind {
    /// `weight`.
    Weight,
    /// `weight` and `bias`, as DC-AE has them.
    WeightBias,
    /// `weight`, applied as 1 + weight (Gemma).
    OnePlusWeight,
}

/// `x / sqrt(mean(x²) + eps)·weight (+ bias)` over the last dimension, statistics in f32.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    add_one: bool,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight` and, where the kind has one, `bias`, both `[dim]`. Training starts from the
    /// identity.
    pub fn load(weights: &Weights, dim: usize, eps: f64, kind: RmsNormKind) -> Result<Self> {
        Self::load_from(weights, dim, eps, kind, 1.0)
    }

    /// As [`RmsNorm::load`], with another starting value of the factor.
    pub fn load_from(
        weights: &Weights,
        dim: usize,
        eps: f64,
        kind: RmsNormKind,
        start: f32,
    ) -> Result<Self> {
        let offset = kind == RmsNormKind::OnePlusWeight;
        let init = Init::Constant(if offset { start - 1.0 } else { start });
        let mut weight = weights.get("weight", &[dim], init)?;
        // A variable changes later, so its one is added at every use.
        let add_one = offset && weight.track_op();
        if offset && !add_one {
            weight = (weight + 1.0)?;
        }
        let bias = match kind {
            RmsNormKind::WeightBias => Some(weights.get("bias", &[dim], Init::Zeros)?),
            _ => None,
        };
        Ok(Self {
            weight,
            bias,
            add_one,
            eps,
        })
    }

    /// The norm as a step after a layer.
    pub fn step(&self) -> ops::Norm<'_> {
        ops::Norm {
            weight: &self.weight,
            bias: self.bias.as_ref(),
            add_one: self.add_one,
            eps: self.eps,
        }
    }

    /// `[.., dim]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.step().forward(x)
    }
}
