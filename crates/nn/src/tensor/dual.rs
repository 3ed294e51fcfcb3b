//! Values with a tangent: forward-mode derivatives through the same model code.

use super::{Place, Tensor};
use crate::error::{Error, Result};
use brisk_cuda::ops::Binary;
use candle_core::Tensor as HostTensor;
use std::sync::Arc;

/// A value, and how fast it changes along one direction. No gradient flows through either.
#[derive(Clone, Debug)]
pub(super) struct Dual {
    pub value: HostTensor,
    pub tangent: HostTensor,
}

impl Dual {
    /// The same linear map of both.
    pub fn map(
        &self,
        map: impl Fn(&HostTensor) -> candle_core::Result<HostTensor>,
    ) -> Result<Tensor> {
        Ok(Self {
            value: map(&self.value)?,
            tangent: map(&self.tangent)?,
        }
        .into())
    }

    /// `x·factor + addend`.
    pub fn affine(&self, factor: f64, addend: f64) -> Result<Tensor> {
        Ok(Self {
            value: self.value.affine(factor, addend)?,
            tangent: self.tangent.affine(factor, 0.0)?,
        }
        .into())
    }
}

impl From<Dual> for Tensor {
    fn from(dual: Dual) -> Self {
        Self(Place::Dual(Arc::new(dual)))
    }
}

/// Forward-mode derivatives. What is computed from a value with a tangent has one too: the directional
/// derivative of a whole model comes with its value, from the same forward pass.
impl Tensor {
    /// The value with this rate of change, of its shape. Both become constants: nothing that is computed from
    /// them has a gradient.
    ///
    /// # Errors
    /// Another shape or type, and values on a card, where there are no tangents.
    pub fn with_tangent(&self, tangent: &Self) -> Result<Self> {
        let (Place::Host(value), Place::Host(rate)) = (&self.0, &tangent.0) else {
            let problem = "a tangent goes with plain values in ordinary memory";
            return Err(Error::Config(problem.to_owned()));
        };
        if value.dims() != rate.dims() || value.dtype() != rate.dtype() {
            return Err(Error::Shape(format!(
                "a tangent of shape {:?} and type {:?} for a value of {:?} and {:?}",
                rate.dims(),
                rate.dtype(),
                value.dims(),
                value.dtype()
            )));
        }
        Ok(Dual {
            value: value.detach(),
            tangent: rate.detach(),
        }
        .into())
    }

    /// As [`Tensor::with_tangent`]; itself, as a constant, without one.
    pub(crate) fn with_tangent_of(&self, tangent: Option<&Self>) -> Result<Self> {
        match tangent {
            Some(tangent) => self.with_tangent(tangent),
            None => Ok(self.detach()),
        }
    }

    /// Whether it has a tangent.
    pub fn has_tangent(&self) -> bool {
        matches!(&self.0, Place::Dual(_))
    }

    /// The value without its tangent.
    pub fn primal(&self) -> Self {
        match &self.0 {
            Place::Dual(dual) => (&dual.value).into(),
            _ => self.clone(),
        }
    }

    /// The tangent, where it has one.
    pub fn tangent(&self) -> Option<Self> {
        match &self.0 {
            Place::Dual(dual) => Some((&dual.tangent).into()),
            _ => None,
        }
    }

    /// Value and tangent as constants.
    pub(crate) fn dual_parts(&self) -> (Self, Option<Self>) {
        (self.primal().detach(), self.tangent())
    }
}

/// An error for what loses a tangent.
pub(super) fn without_rule(operation: &str) -> Error {
    Error::Config(format!(
        "{operation} has no rule for tangents, which it would lose"
    ))
}

/// `a` and `b` side by side along `dim`, of which some have a tangent.
pub(super) fn cat(parts: &[&Tensor], dim: usize) -> Result<Tensor> {
    let values: Vec<Tensor> = parts.iter().map(|part| part.primal().detach()).collect();
    let tangents = parts
        .iter()
        .map(|part| match part.tangent() {
            Some(tangent) => Ok(tangent),
            None => Tensor::zeros(part.shape().clone(), part.dtype()),
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&values, dim)?.with_tangent(&Tensor::cat(&tangents, dim)?)
}

/// Arithmetic of two operands of which one has a tangent or both have; none where neither has. Sides of one
/// are repeated where `broadcast`.
pub(super) fn arithmetic(
    operation: Binary,
    a: &Tensor,
    b: &Tensor,
    broadcast: bool,
) -> Option<Result<Tensor>> {
    if !a.has_tangent() && !b.has_tangent() {
        return None;
    }
    if !broadcast && a.dims() != b.dims() {
        return Some(Err(a.apart(b, "arithmetic")));
    }
    Some(broadcast_arithmetic(operation, a, b))
}

fn broadcast_arithmetic(operation: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((a, a_rate), (b, b_rate)) = (a.dual_parts(), b.dual_parts());
    let value = match operation {
        Binary::Add => a.broadcast_add(&b)?,
        Binary::Subtract => a.broadcast_sub(&b)?,
        Binary::Multiply => a.broadcast_mul(&b)?,
        Binary::Divide => a.broadcast_div(&b)?,
    };
    let of_a = match (&a_rate, operation) {
        (None, _) => None,
        (Some(rate), Binary::Multiply) => Some(rate.broadcast_mul(&b)?),
        (Some(rate), Binary::Divide) => Some(rate.broadcast_div(&b)?),
        (Some(rate), _) => Some(rate.clone()),
    };
    let of_b = match (&b_rate, operation) {
        (None, _) => None,
        (Some(rate), Binary::Multiply) => Some(rate.broadcast_mul(&a)?),
        (Some(rate), Binary::Divide) => Some(
            value
                .broadcast_mul(rate)?
                .broadcast_div(&b)?
                .affine(-1.0, 0.0)?,
        ),
        (Some(rate), Binary::Subtract) => Some(rate.affine(-1.0, 0.0)?),
        (Some(rate), _) => Some(rate.clone()),
    };
    let rate = match (of_a, of_b) {
        (Some(a), Some(b)) => a.broadcast_add(&b)?,
        (Some(rate), None) | (None, Some(rate)) => rate,
        (None, None) => return Ok(value),
    };
    value.with_tangent(&rate.broadcast_as(value.shape().clone())?.contiguous()?)
}
