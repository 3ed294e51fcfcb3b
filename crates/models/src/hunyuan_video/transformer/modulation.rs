//! What time and text do to tokens: shifts, scales and gates.

use brisk_nn::{Init, Linear, Tensor, Weights, ops};

use crate::Result;

/// Epsilon of the norms that are modulated.
pub(super) const NORM_EPS: f64 = 1e-6;

/// SiLU and a linear layer, whose result is N vectors.
#[derive(Debug)]
pub(super) struct Modulation<const N: usize> {
    linear: Linear,
    width: usize,
}

impl<const N: usize> Modulation<N> {
    /// Reads `linear`.
    pub fn load(weights: &Weights, width: usize) -> Result<Self> {
        Self::load_layer(&weights.pp("linear"), width)
    }

    /// From the layer itself.
    pub fn load_layer(layer: &Weights, width: usize) -> Result<Self> {
        Ok(Self {
            linear: Linear::load(layer, width, N * width, true, Init::Zeros)?,
            width,
        })
    }

    /// The vectors of one time `[1,width]`, each the same.
    pub fn forward(&self, time: &Tensor) -> Result<[Tensor; N]> {
        let all = self.linear.forward(&ops::silu(time)?)?;
        let vectors =
            (0..N).map(|index| all.narrow(1, index * self.width, self.width)?.contiguous());
        let vectors = vectors.collect::<Result<Vec<_>>>()?;
        Ok(vectors.try_into().expect("N vectors"))
    }
}

/// Times that modulate a stream: one for all tokens, or another for those in front.
pub(super) struct Times {
    /// `[1,width]`.
    pub all: Tensor,
    /// That of the first tokens of the picture, and how many they are.
    pub given: Option<(Tensor, usize)>,
}

/// The vectors of the times of a stream.
pub(super) struct Modulated<const N: usize> {
    all: [Tensor; N],
    given: Option<([Tensor; N], usize)>,
}

impl<const N: usize> Modulated<N> {
    /// Of a stream in which given tokens stand in front.
    pub fn of_picture(modulation: &Modulation<N>, times: &Times) -> Result<Self> {
        let given = match &times.given {
            Some((time, tokens)) => Some((modulation.forward(time)?, *tokens)),
            None => None,
        };
        Ok(Self {
            given,
            ..Self::of_text(modulation, times)?
        })
    }

    /// Of a stream without given tokens.
    pub fn of_text(modulation: &Modulation<N>, times: &Times) -> Result<Self> {
        Ok(Self {
            all: modulation.forward(&times.all)?,
            given: None,
        })
    }

    /// The norm of `x` `[1,tokens,width]`, scaled and shifted by the vectors at these places.
    pub fn norm(&self, x: &Tensor, shift: usize, scale: usize) -> Result<Tensor> {
        self.by_part(x, &|vectors, x| {
            ops::layer_norm_modulate(x, &vectors[shift], &vectors[scale], NORM_EPS)
        })
    }

    /// `x` and `branch` behind the gate at this place; both `[1,tokens,width]`.
    pub fn gated(&self, x: &Tensor, gate: usize, branch: &Tensor) -> Result<Tensor> {
        let Some((vectors, tokens)) = &self.given else {
            return ops::gate_residual(x, &self.all[gate], branch);
        };
        let part = |vectors: &[Tensor; N], start: usize, count: usize| {
            let cut = |x: &Tensor| x.narrow(1, start, count)?.contiguous();
            ops::gate_residual(&cut(x)?, &vectors[gate], &cut(branch)?)
        };
        let all = x.dim(1)?;
        if *tokens >= all {
            return part(vectors, 0, all);
        }
        let parts = [
            part(vectors, 0, *tokens)?,
            part(&self.all, *tokens, all - tokens)?,
        ];
        Tensor::cat(&parts, 1)
    }

    fn by_part(
        &self,
        x: &Tensor,
        run: &dyn Fn(&[Tensor; N], &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some((vectors, tokens)) = &self.given else {
            return run(&self.all, x);
        };
        let all = x.dim(1)?;
        if *tokens >= all {
            return run(vectors, x);
        }
        let parts = [
            run(vectors, &x.narrow(1, 0, *tokens)?.contiguous()?)?,
            run(
                &self.all,
                &x.narrow(1, *tokens, all - tokens)?.contiguous()?,
            )?,
        ];
        Tensor::cat(&parts, 1)
    }
}
