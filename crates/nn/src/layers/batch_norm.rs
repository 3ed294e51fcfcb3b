//! Batch normalisation with stored statistics, as a part of the layer before it.

use crate::error::Result;
use crate::tensor::{Location, Tensor};
use crate::weights::{Init, Weights};

/// `x·scale + shift` over channels, which a batch norm is once it no longer learns. It follows a linear
/// map or a convolution and is folded into that.
#[derive(Clone, Debug)]
pub struct FoldedBatchNorm {
    scale: Tensor,
    shift: Tensor,
}

impl FoldedBatchNorm {
    /// Reads `weight`, `bias`, `running_mean` and `running_var`, all `[channels]`. In training the statistics are those
    /// that the variables hold: nothing here follows the batches, and an optimiser must leave them alone.
    ///
    /// # Errors
    /// A parameter that does not fit.
    pub fn load(weights: &Weights, channels: usize, eps: f64) -> Result<Self> {
        // On the host, where its root is; what the layer becomes goes where the weights do.
        let get =
            |name: &str, init: Init| weights.get(name, &[channels], init)?.to(&Location::HOST);
        let (gamma, beta) = (get("weight", Init::Ones)?, get("bias", Init::Zeros)?);
        let mean = get("running_mean", Init::Zeros)?;
        let variance = get("running_var", Init::Ones)?;
        let scale = (gamma / variance.affine(1.0, eps)?.sqrt()?)?;
        let shift = (beta - (mean * &scale)?)?;
        Ok(Self {
            scale: scale.to(weights.location())?,
            shift: shift.to(weights.location())?,
        })
    }

    /// Weight `[channels, ..]` and bias `[channels]` of a layer and the norm together.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn fold(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let mut sides = vec![1; weight.rank()];
        sides[0] = self.scale.elem_count();
        let weight = weight.broadcast_mul(&self.scale.reshape(sides)?)?;
        let shift = match bias {
            Some(bias) => ((bias * &self.scale)? + &self.shift)?,
            None => self.shift.clone(),
        };
        Ok((weight, shift))
    }
}
