//! The forward pass.

use brisk_nn::ops::{self, AttentionOptions, Epilogue, Residual};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, DType, Embedding, Init, Linear,
    Location, RmsNorm, RmsNormKind, Tensor, Trace, Weights, check_finite,
};

use super::Gemma2Config;
use crate::buffers::ROTARY;
use crate::{Error, Result};

/// A language model's head, which this model does not have.
const HEAD: &str = "lm_head.weight";

const STAGE: &str = "text encoder";

/// Gemma 2 without its language-model head.
#[derive(Debug)]
pub struct Gemma2Model {
    config: Gemma2Config,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

/// Keys and values of a constant run of first tokens.
#[derive(Debug, Clone)]
pub struct Prefix {
    layers: Vec<KeysValues>,
    length: usize,
}

impl Prefix {
    /// Number of tokens it stands for.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it stands for no token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// One layer's rotated keys and its values, both `[B,T,Hk*D]`.
#[derive(Debug, Clone)]
struct KeysValues {
    keys: Tensor,
    values: Tensor,
}

impl Gemma2Model {
    /// Loads the model; names may carry a leading `model.`.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of
    /// another shape.
    pub fn load(config: &Gemma2Config, weights: &Weights) -> Result<Self> {
        config.validate()?;
        let body = if weights.contains("model.embed_tokens.weight") {
            weights.pp("model")
        } else {
            weights.clone()
        };
        let embedding = Embedding::load(
            &body.pp("embed_tokens"),
            config.vocab_size,
            config.hidden_size,
            Init::Normal(0.02),
        )?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(config, index, &body.pp("layers").pp(index)))
            .collect::<Result<_>>()?;
        let norm = norm(config, &body.pp("norm"))?;
        let [inv_freq, original, cos, sin] = ROTARY;
        weights.finish(&[HEAD, inv_freq, original, cos, sin])?;
        Ok(Self {
            config: config.clone(),
            embedding,
            layers,
            norm,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &Gemma2Config {
        &self.config
    }

    /// Encodes `ids` `[B,T]` (u32) to `[B,T,D]`, after the final norm; the result lies where the model computes.
    ///
    /// `mask` `[B,T]` (u32, 1 keeps) hides keys. Rows of masked positions hold finite values of
    /// no meaning.
    ///
    /// # Errors
    /// An id outside the vocabulary, shapes that do not match, or a non-finite activation.
    pub fn forward(&self, ids: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.forward_traced(ids, mask, &mut Trace::none())
    }

    /// As [`Self::forward`]; `trace` sees `embed_tokens` (scaled), every `layers.{i}` and its parts,
    /// and `norm`, under the names of the checkpoint.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_traced(
        &self,
        ids: &Tensor,
        mask: Option<&Tensor>,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let key_mask = self.key_mask(ids, mask)?;
        self.run(ids, None, key_mask, trace).map(|(x, _)| x)
    }

    /// Computes the keys and values of tokens that every later prompt starts with.
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, or a non-finite activation.
    pub fn prefix(&self, ids: &[u32]) -> Result<Prefix> {
        let row = Tensor::from_slice(ids, (1, ids.len()))?;
        let (_, layers) = self.run(&row, None, None, &mut Trace::none())?;
        Ok(Prefix {
            layers,
            length: ids.len(),
        })
    }

    /// Encodes the tokens `ids` `[B,T]` that follow `prefix`; equals the last `T` rows of a run
    /// over prefix and ids together.
    ///
    /// # Errors
    /// As [`Self::forward`]; also a prefix of another model.
    pub fn forward_with_prefix(&self, prefix: &Prefix, ids: &Tensor) -> Result<Tensor> {
        if prefix.layers.len() != self.layers.len() {
            return Err(Error::Shape(format!(
                "the prefix holds {} layers, the model has {}",
                prefix.layers.len(),
                self.layers.len()
            )));
        }
        self.run(ids, Some(prefix), None, &mut Trace::none())
            .map(|(x, _)| x)
    }

    fn run(
        &self,
        ids: &Tensor,
        prefix: Option<&Prefix>,
        key_mask: Option<Vec<Vec<bool>>>,
        trace: &mut Trace,
    ) -> Result<(Tensor, Vec<KeysValues>)> {
        let mut x = self.embed(ids)?;
        trace.see("embed_tokens", &x);
        let mut cache = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let past = prefix.map(|p| (&p.layers[index], p.length));
            let name = format!("layers.{index}");
            let inner = &mut trace.within(&name);
            let (next, keys_values) = layer.forward(&x, past, key_mask.clone(), inner)?;
            check_finite(&next, STAGE, &name)?;
            trace.see(&name, &next);
            cache.push(keys_values);
            x = next;
        }
        let x = self.norm.forward(&x)?;
        trace.see("norm", &x);
        Ok((x, cache))
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        let listed = ids.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
        if listed.is_empty() {
            return Err(Error::Shape("no tokens to encode".into()));
        }
        let width = self.config.hidden_size;
        let rows = self.embedding.forward(&listed)?;
        rows.reshape((batch, tokens, width))? * (width as f64).sqrt()
    }

    /// Which keys to hide. With right padding causality alone keeps padding from real rows.
    fn key_mask(&self, ids: &Tensor, mask: Option<&Tensor>) -> Result<Option<Vec<Vec<bool>>>> {
        let Some(mask) = mask else { return Ok(None) };
        if mask.dims() != ids.dims() {
            return Err(Error::Shape(format!(
                "attention mask {:?} does not match token ids {:?}",
                mask.dims(),
                ids.dims()
            )));
        }
        let mut rows = Vec::new();
        for row in mask.to_dtype(DType::U32)?.to_vec2::<u32>()? {
            rows.push(row.into_iter().map(|m| m != 0).collect::<Vec<_>>());
        }
        if rows.iter().all(|row| row.is_sorted_by(|a, b| a >= b)) {
            return Ok(None);
        }
        Ok(Some(rows))
    }
}

/// From the residual width to the inner one.
#[derive(Debug)]
enum Expand {
    Separate {
        gate: Linear,
        up: Linear,
    },
    /// Gates, then values, in one product: on a card, where products of few rows leave it half idle.
    Joined(Linear),
}

impl Expand {
    fn new(gate: Linear, up: Linear, location: &Location) -> Result<Self> {
        let joined = match location.device().is_none() {
            true => None,
            false => Linear::joined(&[&gate, &up])?,
        };
        Ok(match joined {
            Some(both) => Self::Joined(both),
            None => Self::Separate { gate, up },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Separate { gate, up } => ops::gated_gelu_tanh(&gate.forward(x)?, &up.forward(x)?),
            Self::Joined(both) => ops::joined_gelu_tanh(&both.forward(x)?),
        }
    }
}

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    post_attention_norm: RmsNorm,
    pre_feedforward_norm: RmsNorm,
    post_feedforward_norm: RmsNorm,
    attention: AttentionProjections,
    expand: Expand,
    down: Linear,
    heads: usize,
    key_value_heads: usize,
    scale: f32,
    softcap: Option<f32>,
    theta: f32,
    window: Option<usize>,
}

impl Layer {
    fn load(config: &Gemma2Config, index: usize, weights: &Weights) -> Result<Self> {
        let width = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let inner = config.intermediate_size;
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, false, Init::Normal(0.02))
        };
        let widths = AttentionWidths {
            width,
            context: width,
            queries,
            keys,
            bias: config.attention_bias,
            output_bias: config.attention_bias,
            init: Init::Normal(0.02),
        };
        let attention = weights.pp("self_attn");
        Ok(Self {
            input_norm: norm(config, &weights.pp("input_layernorm"))?,
            post_attention_norm: norm(config, &weights.pp("post_attention_layernorm"))?,
            pre_feedforward_norm: norm(config, &weights.pp("pre_feedforward_layernorm"))?,
            post_feedforward_norm: norm(config, &weights.pp("post_feedforward_layernorm"))?,
            attention: AttentionProjections::load(&attention, AttentionNames::LLAMA, &widths)?,
            expand: Expand::new(
                linear("mlp.gate_proj", width, inner)?,
                linear("mlp.up_proj", width, inner)?,
                weights.location(),
            )?,
            down: linear("mlp.down_proj", inner, width)?,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            scale: config.query_pre_attn_scalar.powf(-0.5) as f32,
            softcap: config.attn_logit_softcapping.map(|cap| cap as f32),
            theta: config.rope_theta() as f32,
            window: config.window(index),
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        past: Option<(&KeysValues, usize)>,
        key_mask: Option<Vec<Vec<bool>>>,
        trace: &mut Trace,
    ) -> Result<(Tensor, KeysValues)> {
        let a = self.input_norm.forward(x)?;
        trace.see("input_layernorm", &a);
        let offset = past.map_or(0, |(_, length)| length);
        let q = self.attention.query.forward(&a)?;
        let q = ops::rotary(&q, self.heads, self.theta, offset)?;
        let keys = self.attention.key.forward(&a)?;
        let keys = ops::rotary(&keys, self.key_value_heads, self.theta, offset)?;
        let values = self.attention.value.forward(&a)?;
        let mut all = KeysValues { keys, values };
        if let Some((past, _)) = past {
            let batch = x.dim(0)?;
            all.keys = Tensor::cat(&[repeat_rows(&past.keys, batch)?, all.keys], 1)?;
            all.values = Tensor::cat(&[repeat_rows(&past.values, batch)?, all.values], 1)?;
        }
        let options = AttentionOptions {
            heads: self.heads,
            key_value_heads: self.key_value_heads,
            scale: self.scale,
            softcap: self.softcap,
            causal: Some(offset),
            key_lengths: None,
            key_mask,
            sliding_window: self.window,
        };
        let attended = ops::attention(&q, &all.keys, &all.values, &options)?;
        let attended = self.attention.output.forward(&attended)?;
        trace.see("self_attn", &attended);
        let x = normed_sum(
            x,
            attended,
            &self.post_attention_norm,
            trace,
            "post_attention_layernorm",
        )?;

        let b = self.pre_feedforward_norm.forward(&x)?;
        trace.see("pre_feedforward_layernorm", &b);
        let hidden = self.down.forward(&self.expand.forward(&b)?)?;
        trace.see("mlp", &hidden);
        let x = normed_sum(
            &x,
            hidden,
            &self.post_feedforward_norm,
            trace,
            "post_feedforward_layernorm",
        )?;
        Ok((x, all))
    }
}

/// `x + norm(part)` in one pass; watched, one after the other.
fn normed_sum(
    x: &Tensor,
    part: Tensor,
    norm: &RmsNorm,
    trace: &mut Trace,
    name: &str,
) -> Result<Tensor> {
    if trace.is_watched() {
        let part = norm.forward(&part)?;
        trace.see(name, &part);
        return x + part;
    }
    let steps = Epilogue {
        norm: Some(norm.step()),
        residual: Some(Residual::Same(x)),
        ..Epilogue::default()
    };
    steps.apply(part)
}

fn norm(config: &Gemma2Config, weights: &Weights) -> Result<RmsNorm> {
    RmsNorm::load(
        weights,
        config.hidden_size,
        config.rms_norm_eps,
        RmsNormKind::OnePlusWeight,
    )
}

/// `[1,T,C]` to `[batch,T,C]`.
fn repeat_rows(x: &Tensor, batch: usize) -> Result<Tensor> {
    let (_, tokens, channels) = x.dims3()?;
    x.broadcast_as((batch, tokens, channels))?.contiguous()
}
