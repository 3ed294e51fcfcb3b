//! The vision encoder, up to a layer.

use brisk_nn::ops::AttentionOptions;
use brisk_nn::{
    Conv2d, ConvOptions, EncoderLayer, Init, LayerNorm, Tensor, Trace, Weights, check_finite,
};

use super::ClipVisionConfig;
use crate::{Error, Result};

const STAGE: &str = "vision encoder";

/// CLIP's vision encoder without the norm and the layers behind those that are wanted.
#[derive(Debug)]
pub struct ClipVision {
    config: ClipVisionConfig,
    class: Tensor,
    patches: Conv2d,
    places: Tensor,
    norm: LayerNorm,
    layers: Vec<EncoderLayer>,
}

impl ClipVision {
    /// Reads `embeddings`, `pre_layrnorm` (which is spelt so) and the first `layers` of `encoder.layers`; whoever calls
    /// finishes the weights.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(config: &ClipVisionConfig, layers: usize, weights: &Weights) -> Result<Self> {
        let (width, options) = (config.hidden_size, config.layer()?);
        let embeddings = weights.pp("embeddings");
        let patch = ConvOptions {
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: 0,
            bias: false,
            ..ConvOptions::SAME_3X3
        };
        let places = config.grid() * config.grid() + 1;
        let start = Init::Normal(0.02);
        let below = weights.pp("encoder.layers");
        let layers = (0..layers).map(|index| EncoderLayer::load(&below.pp(index), &options));
        let (channels, eps) = (config.num_channels, config.layer_norm_eps);
        Ok(Self {
            class: embeddings.get("class_embedding", &[width], start)?,
            patches: Conv2d::load(&embeddings.pp("patch_embedding"), channels, width, patch)?,
            places: embeddings
                .pp("position_embedding")
                .get("weight", &[places, width], start)?,
            norm: LayerNorm::load(&weights.pp("pre_layrnorm"), width, eps, true)?,
            layers: layers.collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// Pictures `[B,N,N,3]`, normalised, to `[B,1 + h·w,C]`, a state for the whole first; `trace` sees every
    /// `layers.{i}`.
    ///
    /// # Errors
    /// A picture of another size, or a non-finite activation.
    pub fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (batch, height, width, colours) = pictures.dims4()?;
        let (side, known) = (self.config.image_size, self.config.num_channels);
        if [height, width, colours] != [side, side, known] {
            return Err(Error::Shape(format!(
                "pictures of {height}×{width} pixels and {colours} channels; expected {side}×{side} and {known}"
            )));
        }
        let channels = self.config.hidden_size;
        let cells = self.config.grid() * self.config.grid();
        let x = self.patches.forward(pictures)?;
        // Pixels that do not fill a patch are left out.
        let x = x.reshape((batch, cells, channels))?;
        let class = self.class.reshape((1, 1, channels))?;
        let class = class.broadcast_as((batch, 1, channels))?.contiguous()?;
        let x = Tensor::cat(&[class, x], 1)?.broadcast_add(&self.places.unsqueeze(0)?)?;
        let mut x = self.norm.forward(&x)?;
        let heads = self.config.num_attention_heads;
        let options = AttentionOptions::new(heads, channels / heads);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &options)?;
            let name = format!("layers.{index}");
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        Ok(x)
    }
}
