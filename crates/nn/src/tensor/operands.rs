//! Tensors as operands.

use std::borrow::Cow;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Device, Tensor as HostTensor};

use super::{OnDevice, Place, Tensor, dual, meeting_place, moved};
use crate::checkpoint::checkpoint;
use crate::error::{Error, Result};

/// What [`crate::ops`] builds on.
impl Tensor {
    /// The tensor as what an operation starts from: the one place where work asks whether it goes on.
    pub(super) fn place(&self) -> Result<&Place> {
        checkpoint()?;
        Ok(&self.0)
    }

    /// Candle's tensor, for what a card cannot do.
    pub(crate) fn on_host(&self, operation: &str) -> Result<&HostTensor> {
        match self.place()? {
            Place::Host(tensor) => Ok(tensor),
            Place::Device(_) => Err(Error::Config(format!(
                "{operation} cannot be done on a card yet; run this part with --device cpu"
            ))),
            Place::Dual(_) => Err(dual::without_rule(operation)),
        }
    }

    /// The card's tensor, where it lies on one.
    pub(crate) fn device(&self) -> Option<&OnDevice> {
        match &self.0 {
            Place::Host(_) | Place::Dual(_) => None,
            Place::Device(tensor) => Some(tensor),
        }
    }

    /// The card's tensor, for an operand beside others that lie on a card.
    pub(crate) fn on_device(&self, operation: &str) -> Result<&OnDevice> {
        checkpoint()?;
        self.device().ok_or_else(|| {
            let expected = "operands on one card, but this one lies in ordinary memory";
            Error::Shape(format!(
                "{operation}: a tensor of shape {:?}: {expected}",
                self.dims()
            ))
        })
    }

    /// An error for operands in two places.
    pub(super) fn apart(&self, other: &Self, operation: &str) -> Error {
        Error::Shape(format!(
            "{operation}: a tensor of shape {:?} lies {}, another of shape {:?} {}",
            self.dims(),
            self.location(),
            other.dims(),
            other.location()
        ))
    }

    pub(crate) fn apply_op1(&self, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Self> {
        let x = self.on_host(op.name())?;
        by_hand(&[x], |operands| operands[0].apply_op1(op))
    }

    pub(crate) fn apply_op2(
        &self,
        second: &Self,
        op: impl CustomOp2 + Send + Sync + 'static,
    ) -> Result<Self> {
        let operands = [self.on_host(op.name())?, second.on_host(op.name())?];
        by_hand(&operands, |operands| {
            operands[0].apply_op2(&operands[1], op)
        })
    }

    pub(crate) fn apply_op3(
        &self,
        second: &Self,
        third: &Self,
        op: impl CustomOp3 + Send + Sync + 'static,
    ) -> Result<Self> {
        let (second, third) = (second.on_host(op.name())?, third.on_host(op.name())?);
        let operands = [self.on_host(op.name())?, second, third];
        by_hand(&operands, |operands| {
            operands[0].apply_op3(&operands[1], &operands[2], op)
        })
    }
}

/// What a kernel of the CPU makes of operands, brought back to the card where one of them is on one.
fn by_hand(
    operands: &[&HostTensor],
    work: impl FnOnce(&[Cow<HostTensor>]) -> candle_core::Result<HostTensor>,
) -> Result<Tensor> {
    let device = meeting_place(operands.iter().copied());
    let near: Vec<_> = operands
        .iter()
        .map(|operand| moved(operand, &Device::Cpu))
        .collect::<candle_core::Result<_>>()?;
    let y = work(&near)?;
    Ok(moved(&y, &device)?.into_owned().into())
}
