//! Embeddings of the latent's patches and of the time.

use brisk_nn::{Init, Linear, PatchEmbedding, Tensor, TimestepEmbedding, Weights, ops};

use super::config::SanaConfig;
use super::position::PositionEmbedding;
use crate::{Error, Result};

/// Sinusoid channels of the time embedding.
const FREQUENCY_CHANNELS: usize = 256;

/// Patches of the latent to tokens, with their places where the model was trained with them.
#[derive(Debug)]
pub(crate) struct PatchEmbed {
    patches: PatchEmbedding,
    position: Option<PositionEmbedding>,
}

impl PatchEmbed {
    pub(crate) fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let (patch, channels, width) = (config.patch_size, config.in_channels, config.width());
        Ok(Self {
            patches: PatchEmbedding::load(&weights.pp("proj"), channels, patch, width)?,
            position: config
                .interpolation_scale
                .map(|scale| PositionEmbedding::new(width, config.sample_size / patch, scale)),
        })
    }

    /// Rows and columns of the token grid of `latent` `[B,h,w,C]`.
    pub(crate) fn grid(&self, latent: &Tensor) -> Result<(usize, usize)> {
        self.patches.grid(latent)
    }

    /// `[B,h,w,C]` to `[B,N,d]`.
    pub(crate) fn forward(&self, latent: &Tensor) -> Result<Tensor> {
        let (rows, columns) = self.grid(latent)?;
        let x = self.patches.forward(latent)?;
        match &self.position {
            Some(position) => Ok(x.broadcast_add(&position.table(rows, columns)?.beside(&x)?)?),
            None => Ok(x),
        }
    }
}

/// Timestep, and guidance strength where the model takes one, to the blocks' modulation.
#[derive(Debug)]
pub(crate) struct TimeEmbed {
    timestep: TimestepEmbedding,
    guidance: Option<TimestepEmbedding>,
    linear: Linear,
}

impl TimeEmbed {
    pub(crate) fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let width = config.width();
        let embedder = |name: &str, second: Init| {
            TimestepEmbedding::load_from(&weights.pp(name), FREQUENCY_CHANNELS, width, second)
        };
        let start = Init::Normal(0.02);
        let (timestep, guidance) = if config.guidance_embeds {
            // Zero: guidance that is added to a trained model changes nothing at first.
            let guidance = embedder("guidance_embedder", Init::Zeros)?;
            (embedder("timestep_embedder", start)?, Some(guidance))
        } else {
            (embedder("emb.timestep_embedder", start)?, None)
        };
        let linear = weights.pp("linear");
        Ok(Self {
            timestep,
            guidance,
            linear: Linear::load(&linear, width, 6 * width, true, Init::Normal(0.02))?,
        })
    }

    /// Modulation of the blocks `[B,6d]`, and the embedding itself `[B,d]`.
    pub(crate) fn forward(
        &self,
        timestep: &Tensor,
        guidance: Option<&Tensor>,
        batch: usize,
    ) -> Result<(Tensor, Tensor)> {
        let one_each = |name: &str, x: &Tensor| {
            if x.dims() == [batch] {
                return Ok(());
            }
            Err(Error::Shape(format!(
                "{name} has shape {:?}, expected [{batch}]",
                x.dims()
            )))
        };
        one_each("timestep", timestep)?;
        let mut embedded = self.timestep.forward(timestep)?;
        match (&self.guidance, guidance) {
            (Some(embedder), Some(strength)) => {
                one_each("guidance", strength)?;
                embedded = (embedded + embedder.forward(strength)?)?;
            }
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::Shape(
                    "this model embeds the guidance strength (`guidance_embeds`): give one".into(),
                ));
            }
            (None, Some(_)) => {
                return Err(Error::Shape(
                    "this model has no guidance embedding (`guidance_embeds` is false)".into(),
                ));
            }
        }
        Ok((self.linear.forward(&ops::silu(&embedded)?)?, embedded))
    }
}
