//! The gated feed-forward layer of Llama-style transformers.

use super::Linear;
use crate::error::Result;
use crate::ops;
use crate::weights::{Init, Weights};
use candle_core::Tensor;

/// How a checkpoint names the three projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatedMlpNames {
    /// The branch that goes through SiLU.
    pub gate: &'static str,
    /// The linear branch.
    pub up: &'static str,
    /// Back to the residual width.
    pub down: &'static str,
}

impl GatedMlpNames {
    /// `gate_proj`, `up_proj`, `down_proj`.
    pub const LLAMA: Self = Self {
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    };
}

/// `down(SiLU(gate(x))·up(x))` over the last dimension.
#[derive(Clone, Debug)]
pub struct GatedMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl GatedMlp {
    /// Reads the three projections: `width` to `inner` twice, and back.
    pub fn load(
        weights: &Weights,
        names: GatedMlpNames,
        width: usize,
        inner: usize,
        bias: bool,
    ) -> Result<Self> {
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, bias, Init::Normal(0.02))
        };
        Ok(Self {
            gate: linear(names.gate, width, inner)?,
            up: linear(names.up, width, inner)?,
            down: linear(names.down, inner, width)?,
        })
    }

    /// `[.., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gated = ops::silu_times(&self.gate.forward(x)?, &self.up.forward(x)?)?;
        self.down.forward(&gated)
    }
}
