//! The image encoder, whichever the model has.

use brisk_nn::{Tensor, Trace, Weights};

use super::SamConfig;
use super::efficient_vit::{EfficientVit, EfficientVitConfig};
use super::tiny_vit::{TinyVit, TinyVitConfig};
use super::vit::{VisionConfig, Vit};
use crate::{Error, Result};

/// Settings of the image encoder. `model_type` of a configuration's `vision_config` says which kind it is.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageEncoderConfig {
    /// The authors' ViT: `sam_vision_model`.
    Vit(VisionConfig),
    /// MobileSAM's TinyViT: `tiny_vit`.
    TinyVit(TinyVitConfig),
    /// EfficientViT-SAM's backbone and neck: `efficientvit`.
    EfficientVit(EfficientVitConfig),
}

impl Default for ImageEncoderConfig {
    fn default() -> Self {
        Self::Vit(VisionConfig::default())
    }
}

impl ImageEncoderConfig {
    /// Settings of a ViT; none of the others.
    pub fn vit(&self) -> Option<&VisionConfig> {
        match self {
            Self::Vit(config) => Some(config),
            _ => None,
        }
    }

    /// The name under which it was published.
    pub fn published(&self) -> Option<&'static str> {
        match self {
            Self::Vit(config) => config.published(),
            Self::TinyVit(config) => config.published(),
            Self::EfficientVit(config) => config.published(),
        }
    }

    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vit(_) => "ViT",
            Self::TinyVit(_) => "TinyViT",
            Self::EfficientVit(_) => "EfficientViT",
        }
    }

    /// Channels of the embedding of a picture.
    pub fn output_channels(&self) -> usize {
        match self {
            Self::Vit(config) => config.output_channels,
            Self::TinyVit(config) => config.output_channels,
            Self::EfficientVit(config) => config.output_channels,
        }
    }
}

/// The image encoder.
#[derive(Debug)]
pub struct ImageEncoder {
    network: Network,
    /// Height and width of pictures, where the network takes no others.
    side: Option<usize>,
}

#[derive(Debug)]
enum Network {
    Vit(Vit),
    TinyVit(TinyVit),
    EfficientVit(EfficientVit),
}

impl ImageEncoder {
    /// Reads `vision_encoder`.
    ///
    /// # Errors
    /// A file that cannot be read, or variables for a network that is only run; what is missing or of another shape is
    /// told by [`Weights::finish`].
    pub fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let weights = weights.pp("vision_encoder");
        let (network, side) = match &config.vision_config {
            ImageEncoderConfig::Vit(config) => (Network::Vit(Vit::load(config, &weights)?), None),
            ImageEncoderConfig::TinyVit(config) => (
                Network::TinyVit(TinyVit::load(config, &weights)?),
                Some(config.image_size),
            ),
            ImageEncoderConfig::EfficientVit(own) => (
                Network::EfficientVit(EfficientVit::load(own, config.grid(), &weights)?),
                Some(own.image_size),
            ),
        };
        Ok(Self { network, side })
    }

    /// Normalised pictures `[B,H,W,3]` to embeddings `[B,h,w,C]`. `trace` sees the parts that
    /// [`SamConfig::encode_cost`] lists, of EfficientViT also `neck.input_ops.{i}`. A ViT takes sides of whole patches,
    /// and the frame's alone where places have vectors of their own; the others take
    /// [`SamConfig::encoder_size`] alone.
    ///
    /// # Errors
    /// Pictures of another size, or a non-finite activation.
    pub fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (_, height, width, _) = pictures.dims4()?;
        if let Some(side) = self.side
            && [height, width] != [side; 2]
        {
            return Err(Error::Shape(format!(
                "pictures of {height}x{width} pixels; expected {side}x{side}"
            )));
        }
        match &self.network {
            Network::Vit(network) => network.forward(pictures, trace),
            Network::TinyVit(network) => network.forward(pictures, trace),
            Network::EfficientVit(network) => network.forward(pictures, trace),
        }
    }

    /// The part of [`SamConfig::encode_cost`] that a traced value belongs to.
    pub(super) fn costed<'a>(&self, traced: &'a str) -> &'a str {
        match &self.network {
            Network::EfficientVit(network) => network.costed(traced),
            _ => traced,
        }
    }
}
