//! The linear layer.

use candle_core::{DType, Result, Tensor};

use super::Statement;
use super::products::{down, sum_down};

/// [`crate::ops::linear`]: the values, the weight, and perhaps a bias.
pub(in crate::ops) struct Linear;

impl Statement for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let (x, w) = (&operands[0], operands[1].to_dtype(DType::F32)?);
        let (outputs, inputs) = w.dims2()?;
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(outputs);
        let rows = x.reshape(((), inputs))?;
        let y = rows.matmul(&w.t()?)?;
        let y = match operands.get(2) {
            Some(bias) => (&y + down(bias, y.dim(0)?)?)?,
            None => y,
        };
        y.reshape(dims)
    }

    fn backward(
        &self,
        operands: &[Tensor],
        needed: &[bool],
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (&operands[0], operands[1].to_dtype(DType::F32)?);
        let (outputs, inputs) = w.dims2()?;
        let flat = gradient.reshape(((), outputs))?;
        let mut gradients = Vec::with_capacity(3);
        gradients.push(match needed[0] {
            true => Some(flat.matmul(&w)?.reshape(x.shape())?),
            false => None,
        });
        gradients.push(match needed[1] {
            true => Some(flat.t()?.matmul(&x.reshape(((), inputs))?)?),
            false => None,
        });
        if operands.len() > 2 {
            gradients.push(match needed[2] {
                true => Some(sum_down(&flat)?),
                false => None,
            });
        }
        Ok(gradients)
    }
}
