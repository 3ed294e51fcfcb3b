//! Attention of all places of a map to each other.

use super::norm;
use crate::error::Result;
use crate::layers::{GroupNorm, Linear};
use crate::ops::{self, AttentionOptions, Epilogue, Residual};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// How a checkpoint holds the projections to queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VqganProjections {
    /// One 1×1 convolution `qkv`.
    Fused,
    /// `q`, `k` and `v`.
    Split,
}

/// One head over all places, with a norm before and a residual.
#[derive(Clone, Debug)]
pub(super) struct MapAttention {
    norm: GroupNorm,
    projections: Vec<Linear>,
    output: Linear,
}

impl MapAttention {
    /// Reads `norm`, the projections and `proj_out`.
    pub fn load(weights: &Weights, channels: usize, names: VqganProjections) -> Result<Self> {
        let linear = |name: &str, outputs: usize| {
            let weights = weights.pp(name);
            Linear::load_pointwise(&weights, channels, outputs, true, Init::KaimingUniform)
        };
        let projections = match names {
            VqganProjections::Fused => vec![linear("qkv", 3 * channels)?],
            VqganProjections::Split => ["q", "k", "v"]
                .into_iter()
                .map(|name| linear(name, channels))
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            norm: norm(&weights.pp("norm"), channels)?,
            projections,
            output: linear("proj_out", channels)?,
        })
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let places = (batch, height * width, channels);
        let h = self.norm.forward(x)?;
        let all = self.projections.iter().map(|layer| layer.forward(&h));
        let all = all.collect::<Result<Vec<_>>>()?;
        let part = |index: usize| match &all[..] {
            [fused] => fused.narrow(3, index * channels, channels)?.reshape(places),
            split => split[index].reshape(places),
        };
        let options = AttentionOptions::new(1, channels);
        let attended = ops::attention(&part(0)?, &part(1)?, &part(2)?, &options)?;
        let steps = Epilogue {
            residual: Some(Residual::Same(x)),
            ..Epilogue::default()
        };
        self.output
            .forward_with(&attended.reshape(x.dims())?, &steps)
    }
}
