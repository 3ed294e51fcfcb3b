//! Normalisations.

use crate::error::Result;
use crate::ops;
use crate::tensor::{DType, Tensor};
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

/// `(x − mean)/√(variance + eps)·weight + bias` over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and, if it has one, `bias`, both `[dim]`. Training starts from the identity.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, dim: usize, eps: f64, bias: bool) -> Result<Self> {
        let bias = match bias {
            true => Some(weights.get("bias", &[dim], Init::Zeros)?),
            false => None,
        };
        Ok(Self {
            weight: weights.get("weight", &[dim], Init::Ones)?,
            bias,
            eps,
        })
    }

    /// Without parameters: weight one, no bias.
    ///
    /// # Errors
    /// None that a positive `dim` gives.
    pub fn plain(dim: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: Tensor::ones(dim, DType::F32)?,
            bias: None,
            eps,
        })
    }

    /// Weight and bias `[dim]`, and epsilon.
    pub fn parameters(&self) -> (&Tensor, Option<&Tensor>, f64) {
        (&self.weight, self.bias.as_ref(), self.eps)
    }

    /// `[.., dim]` to the same shape.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, self.bias.as_ref(), self.eps)
    }
}

/// [`ops::group_norm`] with its parameters: statistics over groups of channels and all positions of a map
/// or clip.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both `[channels]`. Training starts from the identity.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            groups,
            weight: weights.get("weight", &[channels], Init::Ones)?,
            bias: weights.get("bias", &[channels], Init::Zeros)?,
            eps,
        })
    }

    /// `[batch, .., channels]` to the same shape.
    ///
    /// # Errors
    /// Another number of channels, or one that the groups do not divide.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, self.groups, &self.weight, &self.bias, self.eps)
    }

    /// What it does to every channel of a map that comes in `parts`, each `[.., channels]`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn of_parts(&self, parts: &[Tensor]) -> Result<ops::GroupFactors> {
        ops::GroupFactors::of_parts(parts, self.groups, &self.weight, &self.bias, self.eps)
    }
}
