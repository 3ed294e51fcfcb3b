//! A layer of CLIP and its descendants.

use super::{AttentionNames, AttentionProjections, AttentionWidths, LayerNorm, Linear};
use crate::error::{Error, Result};
use crate::ops::{self, AttentionOptions};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// How the attention's projections are named.
const NAMES: AttentionNames = AttentionNames {
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.out_proj",
};

/// Factor of [`EncoderActivation::QuickGelu`].
const QUICK: f64 = 1.702;

/// Activation of an [`EncoderLayer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderActivation {
    /// GELU by the tangent.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// `x·σ(1.702·x)`.
    QuickGelu,
}

impl EncoderActivation {
    /// By the name that configurations give it.
    ///
    /// # Errors
    /// Another name; the message lists the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            "gelu" => Ok(Self::GeluErf),
            "quick_gelu" => Ok(Self::QuickGelu),
            _ => Err(Error::Config(format!(
                "activation {name:?}; expected \"quick_gelu\", \"gelu\" or \"gelu_pytorch_tanh\""
            ))),
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::GeluTanh => ops::gelu_tanh(x),
            Self::GeluErf => ops::gelu_erf(x),
            Self::QuickGelu => ops::silu(&x.affine(QUICK, 0.0)?)?.affine(1.0 / QUICK, 0.0),
        }
    }
}

/// Sizes of an [`EncoderLayer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderLayerOptions {
    /// Channels of a token.
    pub width: usize,
    /// Channels inside the feed-forward layer.
    pub inner: usize,
    /// Epsilon of the norms.
    pub eps: f64,
    /// Activation of the feed-forward layer.
    pub activation: EncoderActivation,
}

/// Norm, attention, norm, two linear layers; with biases, and what came in added to each half.
#[derive(Clone, Debug)]
pub struct EncoderLayer {
    norm1: LayerNorm,
    attention: AttentionProjections,
    norm2: LayerNorm,
    first: Linear,
    second: Linear,
    activation: EncoderActivation,
}

impl EncoderLayer {
    /// Reads `layer_norm1`, `self_attn`, `layer_norm2`, `mlp.fc1` and `mlp.fc2`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, options: &EncoderLayerOptions) -> Result<Self> {
        let EncoderLayerOptions {
            width, inner, eps, ..
        } = *options;
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
        let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, eps, true);
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, true, start)
        };
        Ok(Self {
            norm1: norm("layer_norm1")?,
            attention: AttentionProjections::load(weights, NAMES, &widths)?,
            norm2: norm("layer_norm2")?,
            first: linear("mlp.fc1", width, inner)?,
            second: linear("mlp.fc2", inner, width)?,
            activation: options.activation,
        })
    }

    /// `[batch, tokens, width]` to the same; the attention sees what `options` say.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor, options: &AttentionOptions) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let maps = &self.attention;
        let [q, k, v] = [&maps.query, &maps.key, &maps.value].map(|map| map.forward(&h));
        let attended = ops::attention(&q?, &k?, &v?, options)?;
        let x = ops::add(x, &maps.output.forward(&attended)?)?;
        let h = self.first.forward(&self.norm2.forward(&x)?)?;
        ops::add(&x, &self.second.forward(&self.activation.apply(&h)?)?)
    }
}
