//! What a scale adds to its tokens.

use brisk_nn::{Embedding, Init, Tensor, TimestepEmbedding, Weights};

use super::TransformerConfig;
use super::head::FREQUENCY_CHANNELS;
use crate::Result;

/// A vector for every scale; that of the first belongs to the text.
#[derive(Debug)]
pub(super) enum LevelEmbedding {
    /// From the sinusoid of the scale's number.
    Sinusoid(TimestepEmbedding),
    /// Learned.
    Table(Embedding),
}

impl LevelEmbedding {
    /// Reads `mlp.0` and `mlp.2`, or the table `weight`.
    pub fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let width = config.embed_dim;
        if config.use_timestep_embed {
            let (names, start) = (["mlp.0", "mlp.2"], Init::Normal(0.02));
            let layers =
                TimestepEmbedding::load_named(weights, names, FREQUENCY_CHANNELS, width, start)?;
            return Ok(Self::Sinusoid(layers));
        }
        let start = Init::Normal((1.0 / width as f32 / 3.0).sqrt());
        let table = Embedding::load(weights, config.patch_nums.len(), width, start)?;
        Ok(Self::Table(table))
    }

    /// Those of some scales, `[scales, C]`.
    pub fn forward(&self, scales: &[usize]) -> Result<Tensor> {
        match self {
            Self::Sinusoid(layers) => {
                let numbers: Vec<f32> = scales.iter().map(|scale| *scale as f32).collect();
                layers.forward(&Tensor::from_vec(numbers, scales.len())?)
            }
            Self::Table(table) => {
                let ids: Vec<u32> = scales.iter().map(|scale| *scale as u32).collect();
                table.forward(&ids)
            }
        }
    }
}
