//! SigLIP's vision encoder up to the layer before its last.

use brisk_nn::ops::{self, AttentionOptions};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, Conv2d, ConvOptions, Init, LayerNorm,
    Linear, Tensor, Trace, Weights, check_finite,
};

use super::SiglipConfig;
use crate::{Error, Result};

const STAGE: &str = "vision encoder";

/// SigLIP's names of an attention's projections.
const NAMES: AttentionNames = AttentionNames {
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.out_proj",
};

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    attention: AttentionProjections,
    norm2: LayerNorm,
    first: Linear,
    second: Linear,
}

/// The encoder.
#[derive(Debug)]
pub struct Encoder {
    config: SiglipConfig,
    patches: Conv2d,
    positions: Tensor,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Reads `embeddings` and `encoder.layers` of a `vision_model`, all but the last layer.
    pub(super) fn load(config: &SiglipConfig, weights: &Weights) -> Result<Self> {
        let (width, inner, eps) = (
            config.hidden_size,
            config.intermediate_size,
            config.layer_norm_eps,
        );
        let start = Init::FanIn(1.0);
        let widths = AttentionWidths {
            width,
            context: width,
            queries: width,
            keys: width,
            bias: true,
            output_bias: true,
            init: start,
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
        let layers = (0..config.layers()).map(|index| {
            let weights = weights.pp("encoder.layers").pp(index);
            let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, eps, true);
            let linear = |name: &str, from: usize, to: usize| {
                Linear::load(&weights.pp(name), from, to, true, start)
            };
            Ok(Layer {
                norm1: norm("layer_norm1")?,
                attention: AttentionProjections::load(&weights, NAMES, &widths)?,
                norm2: norm("layer_norm2")?,
                first: linear("mlp.fc1", width, inner)?,
                second: linear("mlp.fc2", inner, width)?,
            })
        });
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
            let h = layer.norm1.forward(&x)?;
            let maps = &layer.attention;
            let [q, k, v] = [&maps.query, &maps.key, &maps.value].map(|map| map.forward(&h));
            let attended = ops::attention(&q?, &k?, &v?, &options)?;
            x = ops::add(&x, &maps.output.forward(&attended)?)?;
            let h = layer.first.forward(&layer.norm2.forward(&x)?)?;
            x = ops::add(&x, &layer.second.forward(&ops::gelu_tanh(&h)?)?)?;
            let name = format!("layers.{index}");
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        x.reshape((batch, grid, grid, channels))
    }
}
