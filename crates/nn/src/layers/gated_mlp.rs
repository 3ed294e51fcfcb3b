//! The gated feed-forward layer of Llama-style transformers.

use super::Linear;
use crate::error::Result;
use crate::ops::{self, Epilogue};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

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
    expand: Expand,
    down: Linear,
}

/// From the residual width to the inner one.
#[derive(Clone, Debug)]
enum Expand {
    Separate {
        gate: Linear,
        up: Linear,
    },
    /// Values of `up`, then of `gate`, in one product: frozen weights.
    Joined(Linear),
}

impl GatedMlp {
    /// Reads the three projections: `width` to `inner` twice, and back; `back` is how the last one
    /// starts when it is trained.
    pub fn load(
        weights: &Weights,
        names: GatedMlpNames,
        width: usize,
        inner: usize,
        bias: bool,
        back: Init,
    ) -> Result<Self> {
        let linear = |name: &str, from: usize, to: usize, start: Init| {
            Linear::load(&weights.pp(name), from, to, bias, start)
        };
        let (gate, up) = (
            linear(names.gate, width, inner, Init::FanIn(1.0))?,
            linear(names.up, width, inner, Init::FanIn(1.0))?,
        );
        let expand = match Linear::joined(&[&up, &gate])? {
            Some(joined) => Expand::Joined(joined),
            None => Expand::Separate { gate, up },
        };
        let down = linear(names.down, inner, width, back)?;
        Ok(Self { expand, down })
    }

    /// `[.., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &Epilogue::default())
    }

    /// As [`GatedMlp::forward`], followed by `steps`.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        let inner = match &self.expand {
            Expand::Separate { gate, up } => ops::silu_times(&gate.forward(x)?, &up.forward(x)?)?,
            Expand::Joined(both) => ops::gated_silu(&both.forward(x)?)?,
        };
        self.down.forward_with(&inner, steps)
    }
}
