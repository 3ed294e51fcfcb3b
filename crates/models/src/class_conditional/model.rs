//! The networks behind one face.

use brisk_nn::{Tensor, Trace, Weights};

use super::dit::Dit;
use super::u_vit::UVit;
use super::{Architecture, ClassConditionalConfig};
use crate::{Error, Result};

pub(super) const STAGE: &str = "transformer";

/// A class-conditional diffusion transformer: UViT, USiT, DiT or SiT.
#[derive(Debug)]
pub struct ClassConditionalTransformer {
    config: ClassConditionalConfig,
    network: Network,
}

#[derive(Debug)]
enum Network {
    UVit(Box<UVit>),
    Dit(Box<Dit>),
}

impl ClassConditionalTransformer {
    /// Loads the model.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another shape.
    pub fn load(config: &ClassConditionalConfig, weights: &Weights) -> Result<Self> {
        config.validate()?;
        let network = match config.architecture {
            Architecture::UVit => Network::UVit(Box::new(UVit::load(config, weights)?)),
            Architecture::Dit => Network::Dit(Box::new(Dit::load(config, weights)?)),
        };
        weights.finish(&[])?;
        Ok(Self {
            config: config.clone(),
            network,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &ClassConditionalConfig {
        &self.config
    }

    /// What the network predicts from latents `[B,n,n,C]` at `times` `[B]` (1 to 1000 in a UViT, 0 to 999 in a DiT, 0 to 1
    /// from noise on with flow) of `classes`, one a row: noise or velocity `[B,n,n,C]`, and where
    /// [`ClassConditionalConfig::learn_sigma`] as many channels more that say between which bounds the variance lies.
    ///
    /// # Errors
    /// Shapes that do not fit each other or the configuration, a class that the table lacks, or a non-finite activation.
    pub fn forward(&self, latents: &Tensor, times: &Tensor, classes: &[u32]) -> Result<Tensor> {
        self.forward_traced(latents, times, classes, &mut Trace::none())
    }

    /// As [`Self::forward`]; `trace` sees the embeddings, every block and the output, under the checkpoint's names.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_traced(
        &self,
        latents: &Tensor,
        times: &Tensor,
        classes: &[u32],
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (side, channels) = (self.config.input_size, self.config.in_channels);
        let batch = latents.dims().first().copied().unwrap_or(0);
        if latents.dims() != [batch, side, side, channels] || batch == 0 {
            return Err(Error::Shape(format!(
                "latents {:?}; expected [batch, {side}, {side}, {channels}]",
                latents.dims()
            )));
        }
        if times.dims() != [batch] || classes.len() != batch {
            return Err(Error::Shape(format!(
                "times {:?} and {} classes for {batch} latents; expected one for each",
                times.dims(),
                classes.len()
            )));
        }
        let rows = self.config.class_rows();
        if let Some(class) = classes.iter().find(|class| **class as usize >= rows) {
            return Err(Error::Shape(format!(
                "class {class}; expected 0 to {}",
                rows - 1
            )));
        }
        match &self.network {
            Network::UVit(network) => network.forward(latents, times, classes, trace),
            Network::Dit(network) => network.forward(latents, times, classes, trace),
        }
    }
}
