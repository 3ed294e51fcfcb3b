//! Embedding of times and guidance scales.

use super::Linear;
use crate::error::Result;
use crate::ops;
use crate::tensor::{Location, Tensor};
use crate::weights::{Init, Weights};

/// `[batch]` scalars to `[batch, channels]`: cos(t·f_k) for the first half of the channels, sin for
/// the second, `f_k = exp(−ln(10000)·k/half)`.
pub fn sinusoid(t: &Tensor, channels: usize) -> Result<Tensor> {
    let half = channels / 2;
    if let Some(rate) = t.tangent() {
        return sinusoid_with_tangent(&t.primal(), &rate, half);
    }
    let frequencies = frequencies(half);
    let t: Vec<f32> = t.to_vec1()?;
    let values: Vec<f32> = t
        .iter()
        .flat_map(|&t| {
            let angles = frequencies.iter().map(move |&f| t * f);
            angles
                .clone()
                .map(f32::cos)
                .chain(angles.map(f32::sin))
                .collect::<Vec<_>>()
        })
        .collect();
    Tensor::from_vec(values, (t.len(), 2 * half))
}

fn frequencies(half: usize) -> Vec<f32> {
    (0..half)
        .map(|k| (-(10000f32.ln()) * k as f32 / half as f32).exp())
        .collect()
}

/// d cos(f·t) = −f·sin(f·t)·dt, d sin(f·t) = f·cos(f·t)·dt.
fn sinusoid_with_tangent(t: &Tensor, rate: &Tensor, half: usize) -> Result<Tensor> {
    let waves = sinusoid(t, 2 * half)?;
    let (cosines, sines) = (waves.narrow(1, 0, half)?, waves.narrow(1, half, half)?);
    let turned = Tensor::cat(&[(sines * -1.0)?, cosines], 1)?;
    let speeds = Tensor::from_vec(frequencies(half).repeat(2), (1, 2 * half))?;
    let tangent = turned.broadcast_mul(&speeds)?;
    waves.with_tangent(&tangent.broadcast_mul(&rate.unsqueeze(1)?)?)
}

/// Two linear layers with SiLU between, on the sinusoid of a scalar.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    first: Linear,
    second: Linear,
    channels: usize,
    location: Location,
}

impl TimestepEmbedding {
    /// Reads `linear_1` and `linear_2`: `channels` to `width` to `width`.
    pub fn load(weights: &Weights, channels: usize, width: usize) -> Result<Self> {
        Self::load_from(weights, channels, width, Init::Normal(0.02))
    }

    /// As [`TimestepEmbedding::load`], with another start of the second layer's weight.
    pub fn load_from(
        weights: &Weights,
        channels: usize,
        width: usize,
        second: Init,
    ) -> Result<Self> {
        Self::load_named(weights, ["linear_1", "linear_2"], channels, width, second)
    }

    /// As [`TimestepEmbedding::load_from`], with other names of the two layers.
    pub fn load_named(
        weights: &Weights,
        names: [&str; 2],
        channels: usize,
        width: usize,
        second: Init,
    ) -> Result<Self> {
        let start = Init::Normal(0.02);
        let first = Linear::load(&weights.pp(names[0]), channels, width, true, start)?;
        let second = Linear::load(&weights.pp(names[1]), width, width, true, second)?;
        Ok(Self {
            first,
            second,
            channels,
            location: weights.location().clone(),
        })
    }

    /// `[batch]` to `[batch, width]`, where the layer lies.
    pub fn forward(&self, t: &Tensor) -> Result<Tensor> {
        let waves = sinusoid(t, self.channels)?.to(&self.location)?;
        let hidden = self.first.forward(&waves)?;
        self.second.forward(&ops::silu(&hidden)?)
    }
}
