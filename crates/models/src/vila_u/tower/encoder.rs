//! SigLIP's vision encoder up to the layer before its last.

use brisk_nn::ops::AttentionOptions;
use brisk_nn::{
    Conv2d, ConvOptions, EncoderActivation, EncoderLayer, EncoderLayerOptions, Init, Tensor, Trace,
    Weights, check_finite,
};

use super::SiglipConfig;
use crate::{Error, Result};

const STAGE: &str = "vision encoder";

/// The encoder.
#[derive(Debug)]
pub struct Encoder {
    config: SiglipConfig,
    patches: Conv2d,
    positions: Tensor,
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// Reads `embeddings` and `encoder.layers` of a `vision_model`, all but the last layer.
    pub(super) fn load(config: &SiglipConfig, weights: &Weights) -> Result<Self> {
        let width = config.hidden_size;
        let layer = EncoderLayerOptions {
            width,
            inner: config.intermediate_size,
            eps: config.layer_norm_eps,
            activation: EncoderActivation::GeluTanh,
        };
        let embeddings = weights.pp("embeddings");
        let options = ConvOptions {
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: 0,
            ..ConvOptions::SAME_3X3
        };
        let patches = Conv2d::load(&embeddings.pp("patch_embedding"), 3, width, options)?;
        let places = config.grid() * config.grid();
        let table = embeddings.pp("position_embedding");
        let positions = table.get("weight", &[places, width], Init::Normal(0.02))?;
        let below = weights.pp("encoder.layers");
        let layers = (0..config.layers()).map(|index| EncoderLayer::load(&below.pp(index), &layer));
        Ok(Self {
            patches,
            positions,
            layers: layers.collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &SiglipConfig {
        &self.config
    }

    /// Pictures `[B,N,N,3]` in −1..1 to `[B,h,w,C]`; `trace` sees `embeddings` and every `layers.{i}`.
    ///
    /// # Errors
    /// A picture of another size, or a non-finite activation.
    pub fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (batch, height, width, colours) = pictures.dims4()?;
        let (side, grid) = (self.config.image_size, self.config.grid());
        if [height, width, colours] != [side, side, 3] {
            return Err(Error::Shape(format!(
                "pictures of {height}×{width} pixels and {colours} channels; `image_size` is {side}, and \
                 they have 3"
            )));
        }
        let channels = self.config.hidden_size;
        let x = self.patches.forward(pictures)?;
        let x = x.reshape((batch, grid * grid, channels))?;
        let mut x = x.broadcast_add(&self.positions.unsqueeze(0)?)?;
        trace.see("embeddings", &x);
        let heads = self.config.num_attention_heads;
        let options = AttentionOptions::new(heads, channels / heads);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &options)?;
            let name = format!("layers.{index}");
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        x.reshape((batch, grid, grid, channels))
    }
}
