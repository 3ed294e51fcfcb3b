//! What SigLIP compares pictures with texts by (arXiv 2303.15343): its text encoder, and behind the places of a
//! picture its last layer and a head that pools them.

use brisk_nn::ops::{self, AttentionOptions};
use brisk_nn::{
    Embedding, EncoderActivation, EncoderLayer, EncoderLayerOptions, Init, LayerNorm, Linear,
    Tensor, Weights, check_finite,
};

use super::{SiglipConfig, SiglipTextConfig};
use crate::{Error, Result};

const STAGE: &str = "text comparison";
/// The factor of cosines, as a logarithm, and what is added to them, before anything is learned.
const FIRST_SCALE: f32 = std::f32::consts::LN_10;
const FIRST_BIAS: f32 = -10.0;
/// Keeps the length of a vector of zeros above zero.
const SHORTEST: f64 = 1e-12;

/// Both halves.
#[derive(Debug)]
pub struct Contrast {
    pictures: PictureHalf,
    texts: TextHalf,
    scale: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct PictureHalf {
    heads: usize,
    last: EncoderLayer,
    norm: LayerNorm,
    /// What asks the places, `[1,1,C]`.
    probe: Tensor,
    /// Queries, keys and values, one behind the other.
    projections: Tensor,
    biases: Tensor,
    out: Linear,
    head_norm: LayerNorm,
    first: Linear,
    second: Linear,
}

#[derive(Debug)]
struct TextHalf {
    config: SiglipTextConfig,
    tokens: Embedding,
    places: Tensor,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
    head: Linear,
}

impl Contrast {
    /// Reads `siglip_model` of `rqvaesiglip`; whoever calls finishes the weights.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(vision: &SiglipConfig, text: &SiglipTextConfig, weights: &Weights) -> Result<Self> {
        let siglip = weights.as_stored().pp("siglip_model");
        Ok(Self {
            pictures: PictureHalf::load(vision, &siglip.pp("vision_model"))?,
            texts: TextHalf::load(text, vision.hidden_size, &siglip.pp("text_model"))?,
            scale: siglip.get("logit_scale", &[1], Init::Constant(FIRST_SCALE))?,
            bias: siglip.get("logit_bias", &[1], Init::Constant(FIRST_BIAS))?,
        })
    }

    /// Places of pictures `[B,P,C]`, as the layer before the last leaves them, quantized or not, to vectors `[B,C]`
    /// of length 1.
    ///
    /// # Errors
    /// Another width, or a non-finite activation.
    pub fn pictures(&self, places: &Tensor) -> Result<Tensor> {
        let half = &self.pictures;
        let (batch, _, width) = places.dims3()?;
        let options = AttentionOptions::new(half.heads, width / half.heads);
        let x = half.norm.forward(&half.last.forward(places, &options)?)?;
        let part = |index: usize, of: &Tensor| {
            let rows = half.projections.narrow(0, index * width, width)?;
            let bias = half.biases.narrow(0, index * width, width)?;
            ops::linear(of, &rows.contiguous()?, Some(&bias.contiguous()?))
        };
        let probe = half.probe.repeat((batch, 1, 1))?;
        let (query, keys, values) = (part(0, &probe)?, part(1, &x)?, part(2, &x)?);
        let pooled = ops::attention(&query, &keys, &values, &options)?;
        let pooled = half.out.forward(&pooled)?;
        let inner = half.first.forward(&half.head_norm.forward(&pooled)?)?;
        let pooled = ops::add(&pooled, &half.second.forward(&ops::gelu_tanh(&inner)?)?)?;
        check_finite(&pooled, STAGE, "vision_model.head")?;
        unit(&pooled.squeeze(1)?)
    }

    /// Texts, each filled up to `max_position_embeddings` ids, row by row, to vectors `[B,C]` of length 1.
    ///
    /// # Errors
    /// Ids outside the vocabulary, another number of them, or a non-finite activation.
    pub fn texts(&self, ids: &[u32]) -> Result<Tensor> {
        let TextHalf { config, .. } = &self.texts;
        let (length, width) = (config.max_position_embeddings, config.hidden_size);
        if ids.is_empty() || !ids.len().is_multiple_of(length) {
            return Err(Error::Shape(format!(
                "{} ids of texts that have {length} each",
                ids.len()
            )));
        }
        let batch = ids.len() / length;
        let x = self.texts.tokens.forward(ids)?;
        let x = x.reshape((batch, length, width))?;
        let mut x = x.broadcast_add(&self.texts.places.unsqueeze(0)?)?;
        let heads = config.num_attention_heads;
        // As the reference has it: what texts are filled up with is seen.
        let options = AttentionOptions::new(heads, width / heads);
        for (index, layer) in self.texts.layers.iter().enumerate() {
            x = layer.forward(&x, &options)?;
            check_finite(&x, STAGE, &format!("text_model.encoder.layers.{index}"))?;
        }
        let last = x.narrow(1, length - 1, 1)?.squeeze(1)?.contiguous()?;
        unit(&self.texts.head.forward(&self.texts.norm.forward(&last)?)?)
    }

    /// Logits `[n,m]` of pictures `[n,C]` with texts `[m,C]`: `exp(scale)·cos + bias`.
    ///
    /// # Errors
    /// Vectors of two widths.
    pub fn logits(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let cosines = ops::linear(pictures, texts, None)?;
        let scaled = cosines.broadcast_mul(&self.scale.exp()?.unsqueeze(0)?)?;
        scaled.broadcast_add(&self.bias.unsqueeze(0)?)
    }

    /// Ids of a text.
    pub fn text_length(&self) -> usize {
        self.texts.config.max_position_embeddings
    }
}

/// Rows of length 1.
fn unit(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.sum_keepdim(1)?;
    x.broadcast_div(&squares.affine(1.0, SHORTEST)?.sqrt()?)
}

impl PictureHalf {
    fn load(config: &SiglipConfig, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let layer = EncoderLayerOptions {
            width,
            inner,
            eps: config.layer_norm_eps,
            activation: EncoderActivation::GeluTanh,
        };
        let last = weights.pp("encoder.layers").pp(config.layers());
        let head = weights.pp("head");
        let start = Init::FanIn(1.0);
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&head.pp(name), from, to, true, start)
        };
        let norm = |weights: Weights| LayerNorm::load(&weights, width, layer.eps, true);
        let attention = head.pp("attention");
        Ok(Self {
            heads: config.num_attention_heads,
            last: EncoderLayer::load(&last, &layer)?,
            norm: norm(weights.pp("post_layernorm"))?,
            probe: head.get("probe", &[1, 1, width], Init::Normal(1.0))?,
            projections: attention.get("in_proj_weight", &[3 * width, width], start)?,
            biases: attention.get("in_proj_bias", &[3 * width], Init::Zeros)?,
            out: linear("attention.out_proj", width, width)?,
            head_norm: norm(head.pp("layernorm"))?,
            first: linear("mlp.fc1", width, inner)?,
            second: linear("mlp.fc2", inner, width)?,
        })
    }
}

impl TextHalf {
    /// With vectors of `width` channels.
    fn load(config: &SiglipTextConfig, width: usize, weights: &Weights) -> Result<Self> {
        let hidden = config.hidden_size;
        let layer = EncoderLayerOptions {
            width: hidden,
            inner: config.intermediate_size,
            eps: config.layer_norm_eps,
            activation: EncoderActivation::GeluTanh,
        };
        let embeddings = weights.pp("embeddings");
        let table = embeddings.pp("token_embedding");
        let places = embeddings.pp("position_embedding");
        let (rows, start) = (config.max_position_embeddings, Init::Normal(0.02));
        let below = weights.pp("encoder.layers");
        let layers =
            (0..config.num_hidden_layers).map(|index| EncoderLayer::load(&below.pp(index), &layer));
        let norm = weights.pp("final_layer_norm");
        Ok(Self {
            tokens: Embedding::load(&table, config.vocab_size, hidden, start)?,
            places: places.get("weight", &[rows, hidden], start)?,
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::load(&norm, hidden, config.layer_norm_eps, true)?,
            head: Linear::load(&weights.pp("head"), hidden, width, true, Init::FanIn(1.0))?,
            config: config.clone(),
        })
    }
}
