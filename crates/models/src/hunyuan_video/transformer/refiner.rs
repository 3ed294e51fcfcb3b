//! The token refiner: a text's tokens on their way in.

use brisk_nn::ops::{self, Activation, AttentionOptions, Epilogue, Residual};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, Init, LayerNorm, Linear, Tensor, Trace,
    Weights,
};

use super::VideoTransformerConfig;
use super::embed::TextTime;
use super::modulation::{Modulation, NORM_EPS};
use crate::Result;

/// Hidden channels of the MLPs, in widths.
pub(super) const MLP_RATIO: usize = 4;

#[derive(Debug)]
pub(super) struct TokenRefiner {
    time: TextTime,
    input: Linear,
    blocks: Vec<RefinerBlock>,
}

impl TokenRefiner {
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let (inputs, width) = (config.text_embed_dim, config.width());
        let blocks = weights.pp("token_refiner.refiner_blocks");
        let blocks = (0..config.num_refiner_layers)
            .map(|index| RefinerBlock::load(config, &blocks.pp(index)));
        Ok(Self {
            time: TextTime::load(config, &weights.pp("time_text_embed"))?,
            input: Linear::load(
                &weights.pp("proj_in"),
                inputs,
                width,
                true,
                Init::XavierUniform,
            )?,
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    /// The valid tokens of a text `[1,T,D]` at a time, to `[1,T,width]`; `trace` sees every block by its number.
    pub fn forward(&self, text: &Tensor, time: f32, trace: &mut Trace) -> Result<Tensor> {
        let time = self.time.forward(time, text)?;
        let mut x = self.input.forward(text)?;
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &time)?;
            trace.detail(&index.to_string(), &x);
        }
        Ok(x)
    }
}

#[derive(Debug)]
struct RefinerBlock {
    norms: [LayerNorm; 2],
    attention: AttentionProjections,
    mlp: Mlp,
    gates: Modulation<2>,
    options: AttentionOptions,
}

impl RefinerBlock {
    fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let width = config.width();
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, NORM_EPS, true);
        let widths = AttentionWidths {
            width,
            context: width,
            queries: width,
            keys: width,
            bias: true,
            output_bias: true,
            init: Init::XavierUniform,
        };
        let names = AttentionNames::DIFFUSERS;
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            attention: AttentionProjections::load(&weights.pp("attn"), names, &widths)?,
            mlp: Mlp::load(
                &weights.pp("ff"),
                width,
                MLP_RATIO * width,
                Activation::Silu,
            )?,
            gates: Modulation::load(&weights.pp("norm_out"), width)?,
            options: AttentionOptions::new(config.num_attention_heads, config.attention_head_dim),
        })
    }

    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let [attends, feeds] = self.gates.forward(time)?;
        let a = self.norms[0].forward(x)?;
        let maps = &self.attention;
        let (q, k, v) = (
            maps.query.forward(&a)?,
            maps.key.forward(&a)?,
            maps.value.forward(&a)?,
        );
        let attended = ops::attention(&q, &k, &v, &self.options)?;
        let gated = |x| Epilogue {
            residual: Some(x),
            ..Epilogue::default()
        };
        let x = maps
            .output
            .forward_with(&attended, &gated(Residual::Gated(x, &attends)))?;
        let b = self.norms[1].forward(&x)?;
        self.mlp
            .forward_with(&b, &gated(Residual::Gated(&x, &feeds)))
    }
}

/// Two linear layers with an activation between, under diffusers' names.
#[derive(Debug)]
pub(super) struct Mlp {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads `net.0.proj` and `net.2`.
    pub fn load(
        weights: &Weights,
        width: usize,
        hidden: usize,
        activation: Activation,
    ) -> Result<Self> {
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, true, Init::XavierUniform)
        };
        Ok(Self {
            first: linear("net.0.proj", width, hidden)?,
            second: linear("net.2", hidden, width)?,
            activation,
        })
    }

    /// `[1,tokens,width]` to the same, followed by `steps`.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        let hidden = self
            .first
            .forward_with(x, &Epilogue::activation(self.activation))?;
        self.second.forward_with(&hidden, steps)
    }
}
