//! What losses against a discriminator share.

use brisk_nn::{Tensor, ops};
use candle_core::Var;

use crate::error::{Error, Result};

/// Slope of the discriminators' activation below zero.
const SLOPE: f64 = 0.2;

/// The generator's loss: −mean of all logits.
pub(crate) fn generator_loss(logits: &Tensor) -> Result<Tensor> {
    Ok((logits.mean_all()? * -1.0)?)
}

/// The hinge loss ½·(mean relu(1 − real) + mean relu(1 + fake)).
pub(crate) fn hinge_loss(real: &Tensor, fake: &Tensor) -> Result<Tensor> {
    let real = ops::relu(&real.affine(-1.0, 1.0)?)?.mean_all()?;
    let fake = ops::relu(&(fake + 1.0)?)?.mean_all()?;
    Ok(((real + fake)? * 0.5)?)
}

/// A rectifier with a slope below zero.
pub(super) fn leaky_relu(x: &Tensor) -> Result<Tensor> {
    Ok(((x * SLOPE)? + (ops::relu(x)? * (1.0 - SLOPE))?)?)
}

/// The discriminator's variable whose full name ends so.
pub(super) fn variable(variables: &[(String, Var)], name: &str) -> Result<Var> {
    let found = variables.iter().find(|(known, _)| known.ends_with(name));
    let missing = || Error::Data(format!("the discriminator has no {name}"));
    found
        .map(|(_, variable)| variable.clone())
        .ok_or_else(missing)
}

/// A variable, or its values as a constant.
pub(super) fn parameter(variable: &Var, learns: bool) -> Tensor {
    let tensor: Tensor = variable.as_tensor().into();
    match learns {
        true => tensor,
        false => tensor.detach(),
    }
}
