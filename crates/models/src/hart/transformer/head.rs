//! The diffusion head: what a place's codeword leaves, from noise, place by place.

use brisk_nn::{Init, LayerNorm, Linear, Tensor, TimestepEmbedding, Trace, Weights, ops};

use super::TransformerConfig;
use crate::Result;

/// Channels of the sinusoid of a time.
pub(super) const FREQUENCY_CHANNELS: usize = 256;
const EPSILON: f64 = 1e-6;

/// A residual perceptron whose blocks are modulated by time and condition.
#[derive(Debug)]
pub struct DiffusionHead {
    time: TimestepEmbedding,
    condition: Linear,
    input: Linear,
    blocks: Vec<Block>,
    last_norm: LayerNorm,
    last_modulation: Linear,
    last: Linear,
}

#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    first: Linear,
    second: Linear,
    modulation: Linear,
}

impl DiffusionHead {
    /// Reads `time_embed`, `cond_embed`, `input_proj`, `res_blocks` and `final_layer`, for codewords of
    /// `channels`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(config: &TransformerConfig, channels: usize, weights: &Weights) -> Result<Self> {
        let width = config.diff_width;
        let linear = |name: &str, from: usize, to: usize, init: Init| {
            Linear::load(&weights.pp(name), from, to, true, init)
        };
        let xavier = Init::XavierUniform;
        let blocks = (0..config.diff_depth).map(|index| {
            let weights = weights.pp("res_blocks").pp(index);
            let linear = |name: &str, to: usize, init: Init| {
                Linear::load(&weights.pp(name), width, to, true, init)
            };
            Ok(Block {
                norm: LayerNorm::load(&weights.pp("in_ln"), width, EPSILON, true)?,
                first: linear("mlp.0", width, xavier)?,
                second: linear("mlp.2", width, xavier)?,
                modulation: linear("adaLN_modulation.1", 3 * width, Init::Zeros)?,
            })
        });
        let start = Init::Normal(0.02);
        let time = weights.pp("time_embed");
        let names = ["mlp.0", "mlp.2"];
        Ok(Self {
            time: TimestepEmbedding::load_named(&time, names, FREQUENCY_CHANNELS, width, start)?,
            condition: linear("cond_embed", config.embed_dim, width, xavier)?,
            input: linear("input_proj", channels, width, xavier)?,
            blocks: blocks.collect::<Result<_>>()?,
            last_norm: LayerNorm::plain(width, EPSILON)?,
            last_modulation: linear(
                "final_layer.adaLN_modulation.1",
                width,
                2 * width,
                Init::Zeros,
            )?,
            last: linear("final_layer.linear", width, 2 * channels, Init::Zeros)?,
        })
    }

    /// Conditions `[n,C]` as the head uses them at every step, `[n,W]`.
    ///
    /// # Errors
    /// Another width.
    pub fn condition(&self, condition: &Tensor) -> Result<Tensor> {
        self.condition.forward(condition)
    }

    /// Noisy values `[n,z]` at `times` (`[n]`, or `[1]` for all) under prepared conditions `[n,W]` to
    /// `[n,2z]`: the noise, and where between its bounds the variance lies (−1 to 1). `trace` sees the
    /// embeddings and every block.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward(
        &self,
        noisy: &Tensor,
        times: &Tensor,
        condition: &Tensor,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let time = self.time.forward(times)?;
        trace.see("time_embed", &time);
        let modulation = ops::silu(&condition.broadcast_add(&time)?)?;
        let mut x = self.input.forward(noisy)?;
        trace.see("input_proj", &x);
        for (index, block) in self.blocks.iter().enumerate() {
            let [shift, scale, gate] = split(&block.modulation.forward(&modulation)?)?;
            let h = modulate(&block.norm.forward(&x)?, &shift, &scale)?;
            let h = ops::silu(&block.first.forward(&h)?)?;
            let h = block.second.forward(&h)?;
            x = (x + (gate * h)?)?;
            trace.see(&format!("res_blocks.{index}"), &x);
        }
        let [shift, scale] = split(&self.last_modulation.forward(&modulation)?)?;
        let h = modulate(&self.last_norm.forward(&x)?, &shift, &scale)?;
        let y = self.last.forward(&h)?;
        trace.see("final_layer", &y);
        Ok(y)
    }
}

/// Equal parts of the last dimension.
fn split<const PARTS: usize>(x: &Tensor) -> Result<[Tensor; PARTS]> {
    let (_, width) = x.dims2()?;
    let width = width / PARTS;
    let mut parts = [(); PARTS].map(|()| x.clone());
    for (index, part) in parts.iter_mut().enumerate() {
        *part = x.narrow(1, index * width, width)?;
    }
    Ok(parts)
}

/// `x·(1 + scale) + shift`.
fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    (x * (scale + 1.0)?)? + shift
}
