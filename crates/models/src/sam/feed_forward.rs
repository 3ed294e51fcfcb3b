//! The feed-forward network of encoders and decoder.

use brisk_nn::ops::{Activation, Epilogue, Residual};
use brisk_nn::{Init, Linear, Tensor, Weights};

use crate::Result;

/// Two linear maps with an activation between them.
#[derive(Debug)]
pub(super) struct FeedForward {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl FeedForward {
    /// Reads `lin1` and `lin2`.
    pub(super) fn load(
        weights: &Weights,
        width: usize,
        inner: usize,
        activation: Activation,
    ) -> Result<Self> {
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, true, Init::KaimingUniform)
        };
        Ok(Self {
            first: linear("lin1", width, inner)?,
            second: linear("lin2", inner, width)?,
            activation,
        })
    }

    /// `[.., C]` to the same shape, with `residual` added.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let inner = self
            .first
            .forward_with(x, &Epilogue::activation(self.activation))?;
        let steps = Epilogue {
            residual: Some(Residual::Same(residual)),
            ..Epilogue::default()
        };
        self.second.forward_with(&inner, &steps)
    }
}
