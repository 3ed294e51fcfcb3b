//! One transformer block: linear self-attention, cross attention, Mix-FFN.

use std::ops::Range;

use brisk_nn::ops::{self, AttentionOptions, Epilogue, Residual};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, GluMbConv, Init, Linear, LinearGroup,
    QueryKeyNorms, Tensor, Trace, Weights,
};

use super::SanaConfig;
use crate::Result;

/// Epsilon of the self-attention's QK-norm, in both reference implementations.
const SELF_QK_NORM_EPS: f64 = 1e-5;

/// What a block needs besides the tokens.
pub(crate) struct BlockInput<'a> {
    /// Time modulation `[B,6,d]` with the block's own table: [`SanaBlock::modulation`].
    pub modulation: &'a Tensor,
    /// Keys `[B,L,c]` of the caption.
    pub keys: &'a Tensor,
    /// Values `[B,L,c]` of the caption.
    pub values: &'a Tensor,
    /// Valid caption rows of each picture.
    pub lengths: &'a [usize],
    /// Rows and columns of the token grid.
    pub grid: (usize, usize),
    /// Pictures whose self-attention is replaced by identity (PAG).
    pub perturbed: Option<Range<usize>>,
}

/// Runs a part and adds its result to the tokens; watched in detail, one after the other.
fn part(
    trace: &mut Trace,
    name: &str,
    sum: Residual,
    forward: &dyn Fn(&Epilogue) -> Result<Tensor>,
) -> Result<Tensor> {
    let steps = Epilogue {
        residual: Some(sum),
        ..Epilogue::default()
    };
    if trace.is_detailed() {
        let result = forward(&Epilogue::default())?;
        trace.see(name, &result);
        return steps.apply(result);
    }
    let x = forward(&steps)?;
    trace.see(name, &x);
    Ok(x)
}

#[derive(Debug)]
pub(crate) struct SanaBlock {
    scale_shift_table: Tensor,
    self_attention: SelfAttention,
    cross_attention: CrossAttention,
    feed_forward: GluMbConv,
    norm2: Option<(Tensor, Tensor)>,
    norm_eps: f64,
}

impl SanaBlock {
    pub(crate) fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let width = config.width();
        let table_init = Init::Normal(1.0 / (width as f32).sqrt());
        let norm2 = if config.norm_elementwise_affine {
            let norm = weights.pp("norm2");
            Some((
                norm.get("weight", &[width], Init::Ones)?,
                norm.get("bias", &[width], Init::Zeros)?,
            ))
        } else {
            None
        };
        Ok(Self {
            scale_shift_table: weights.get("scale_shift_table", &[6, width], table_init)?,
            self_attention: SelfAttention::load(config, &weights.pp("attn1"))?,
            cross_attention: CrossAttention::load(config, &weights.pp("attn2"))?,
            feed_forward: GluMbConv::load(&weights.pp("ff"), width, config.hidden())?,
            norm2,
            norm_eps: config.norm_eps,
        })
    }

    /// Time modulation `[B,6,d]` plus the block's own table.
    pub(crate) fn modulation(&self, time: &Tensor) -> Result<Tensor> {
        time.broadcast_add(&self.scale_shift_table)
    }

    /// The block's own table `[6,d]`.
    pub(crate) fn table(&self) -> &Tensor {
        &self.scale_shift_table
    }

    /// Keys and values of the projected caption `[B,L,d]`, each `[B,L,c]`.
    pub(crate) fn keys_values(&self, caption: &Tensor) -> Result<(Tensor, Tensor)> {
        self.cross_attention.keys_values(caption)
    }

    /// `[B,N,d]` to the same.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        input: &BlockInput,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let row = |index: usize| -> Result<Tensor> {
            let row = input.modulation.narrow(1, index, 1)?;
            row.squeeze(1)?.contiguous()
        };

        let a = ops::layer_norm_modulate(x, &row(0)?, &row(1)?, self.norm_eps)?;
        trace.see("attn1.input", &a);
        let gate = row(2)?;
        let x = part(trace, "attn1", Residual::Gated(x, &gate), &|steps| {
            self.self_attention
                .forward(&a, input.perturbed.clone(), steps)
        })?;
        trace.see("attn2.input", &x);

        let x = part(trace, "attn2", Residual::Same(&x), &|steps| {
            self.cross_attention.forward(&x, input, steps)
        })?;

        let (shift, scale) = self.second_modulation(row(3)?, row(4)?)?;
        let b = ops::layer_norm_modulate(&x, &shift, &scale, self.norm_eps)?;
        let grid = (batch, input.grid.0, input.grid.1, width);
        let (x, b) = (x.reshape(grid)?, b.reshape(grid)?);
        trace.see("ff.input", &b);
        let gate = row(5)?;
        let x = part(trace, "ff", Residual::Gated(&x, &gate), &|steps| {
            self.feed_forward.forward_with(&b, steps)
        })?;
        x.reshape((batch, tokens, width))
    }

    /// Folds the second norm's own weight and bias, where it has them, into the modulation:
    /// `(n*w + b)*(1 + scale) + shift`.
    fn second_modulation(&self, shift: Tensor, scale: Tensor) -> Result<(Tensor, Tensor)> {
        let Some((weight, bias)) = &self.norm2 else {
            return Ok((shift, scale));
        };
        let factor = (scale + 1.0)?;
        let shift = (factor.broadcast_mul(bias)? + shift)?;
        let scale = (factor.broadcast_mul(weight)? - 1.0)?;
        Ok((shift, scale))
    }
}

/// ReLU linear attention over all tokens.
#[derive(Debug)]
struct SelfAttention {
    to_qkv: LinearGroup<3>,
    to_out: Linear,
    norms: Option<QueryKeyNorms>,
    heads: usize,
    eps: f64,
}

impl SelfAttention {
    fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let (width, init) = (config.width(), Init::XavierUniform);
        let (names, bias) = (["to_q", "to_k", "to_v"], config.attention_bias);
        Ok(Self {
            to_qkv: LinearGroup::load(weights, names, width, [width; 3], bias, init)?,
            to_out: Linear::load(&weights.pp("to_out.0"), width, width, true, init)?,
            norms: qk_norms(config, weights, width, SELF_QK_NORM_EPS)?,
            heads: config.num_attention_heads,
            eps: config.numerics.linear_attention_eps(),
        })
    }

    fn forward(
        &self,
        a: &Tensor,
        perturbed: Option<Range<usize>>,
        steps: &Epilogue,
    ) -> Result<Tensor> {
        let Some(skip) = perturbed.filter(|rows| !rows.is_empty()) else {
            let [q, k, values] = self.to_qkv.forward(a)?;
            return self
                .to_out
                .forward_with(&self.attend(q, k, &values)?, steps);
        };
        let [values] = self.to_qkv.forward_from(2, a)?;
        let batch = a.dim(0)?;
        let mut parts = Vec::with_capacity(3);
        for (rows, attends) in [
            (0..skip.start, true),
            (skip.clone(), false),
            (skip.end..batch, true),
        ] {
            if rows.is_empty() {
                continue;
            }
            let part = values.narrow(0, rows.start, rows.len())?.contiguous()?;
            parts.push(if attends {
                let a = a.narrow(0, rows.start, rows.len())?.contiguous()?;
                let [q, k] = self.to_qkv.forward_from(0, &a)?;
                self.attend(q, k, &part)?
            } else {
                part
            });
        }
        self.to_out.forward_with(&Tensor::cat(&parts, 0)?, steps)
    }

    fn attend(&self, mut q: Tensor, mut k: Tensor, values: &Tensor) -> Result<Tensor> {
        if let Some(norms) = &self.norms {
            (q, k) = norms.both(&q, &k)?;
        }
        ops::linear_attention(&q, &k, values, self.heads, self.eps)
    }
}

/// Softmax attention of the tokens over the caption.
#[derive(Debug)]
struct CrossAttention {
    maps: AttentionProjections,
    norms: Option<QueryKeyNorms>,
    heads: usize,
    head_dim: usize,
}

impl CrossAttention {
    fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.width(), config.cross_width());
        let widths = AttentionWidths {
            width,
            context: width,
            queries: inner,
            keys: inner,
            bias: true,
            output_bias: true,
            init: Init::XavierUniform,
        };
        let eps = config.numerics.cross_qk_norm_eps();
        Ok(Self {
            maps: AttentionProjections::load(weights, AttentionNames::DIFFUSERS, &widths)?,
            norms: qk_norms(config, weights, inner, eps)?,
            heads: config.num_cross_attention_heads,
            head_dim: config.cross_attention_head_dim,
        })
    }

    fn keys_values(&self, caption: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut keys = self.maps.key.forward(caption)?;
        if let Some(norms) = &self.norms {
            keys = norms.key(&keys)?;
        }
        Ok((keys, self.maps.value.forward(caption)?))
    }

    /// Attention over a single key is that key's value whatever the query, so the leading pictures
    /// with one caption row (an empty negative prompt) need no query and one output row.
    fn forward(&self, x: &Tensor, input: &BlockInput, steps: &Epilogue) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let constant = input.lengths.iter().take_while(|l| **l == 1).count();
        if constant == 0 {
            return self.attend(x, input.keys, input.values, input.lengths, steps);
        }
        let values = input.values.narrow(0, 0, constant)?.narrow(1, 0, 1)?;
        let same = self
            .maps
            .output
            .forward(&values.contiguous()?)?
            .broadcast_as((constant, tokens, width))?
            .contiguous()?;
        if constant == batch {
            return steps.apply(same);
        }
        let rest = |t: &Tensor| t.narrow(0, constant, batch - constant)?.contiguous();
        let attended = self.attend(
            &rest(x)?,
            &rest(input.keys)?,
            &rest(input.values)?,
            &input.lengths[constant..],
            &Epilogue::default(),
        )?;
        steps.apply(Tensor::cat(&[same, attended], 0)?)
    }

    fn attend(
        &self,
        x: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        lengths: &[usize],
        steps: &Epilogue,
    ) -> Result<Tensor> {
        let mut q = self.maps.query.forward(x)?;
        if let Some(norms) = &self.norms {
            q = norms.query(&q)?;
        }
        let padded = keys.dim(1)?;
        let ragged = lengths.iter().any(|length| *length != padded);
        let options = AttentionOptions {
            heads: self.heads,
            key_value_heads: self.heads,
            scale: (self.head_dim as f32).powf(-0.5),
            softcap: None,
            causal: None,
            key_lengths: ragged.then(|| lengths.to_vec()),
            key_mask: None,
            sliding_window: None,
        };
        let attended = ops::attention(&q, keys, values, &options)?;
        self.maps.output.forward_with(&attended, steps)
    }
}

fn qk_norms(
    config: &SanaConfig,
    weights: &Weights,
    width: usize,
    eps: f64,
) -> Result<Option<QueryKeyNorms>> {
    if config.qk_norm.is_none() {
        return Ok(None);
    }
    let names = ["norm_q", "norm_k"];
    QueryKeyNorms::load(weights, names, [width; 2], eps).map(Some)
}
