//! One block: attention and a gated feed-forward layer under one norm weight.

use brisk_nn::ops::{self, AttentionOptions, AttentionSpan, RotaryAngles};
use brisk_nn::{
    GatedMlp, GatedMlpNames, Init, KeyValueCache, Linear, RmsNorm, RmsNormKind, Tensor, Trace,
    Weights,
};

use super::TransformerConfig;
use crate::Result;

/// Largest factor of a normalised query, `ln 100` in the file.
const LARGEST_FACTOR: f32 = 100.0;

/// Tokens of some sequences, and the keys that they see.
pub(super) struct Part<'a> {
    /// Tokens of each sequence in this pass, one after another.
    pub tokens: &'a [usize],
    /// Slots of the caches that are filled before this pass.
    pub filled: usize,
    /// One for each sequence.
    pub caches: &'a mut [KeyValueCache],
    /// How the pass's own keys are kept.
    pub keep: Keep<'a>,
}

/// What the tokens of a pass attend to.
pub(super) enum Seen<'a> {
    /// Keys that are kept, and their own; no gradient flows through the attention.
    Kept(Part<'a>),
    /// Tokens of the same pass.
    Spans(&'a [AttentionSpan]),
}

/// What becomes of a pass's keys and values.
pub(super) enum Keep<'a> {
    /// They go to the slots behind the filled ones.
    Behind,
    /// As [`Keep::Behind`], where the last sequence is one token that stands for so many equal ones in all
    /// the caches that no other sequence of the pass has.
    Repeated(usize),
    /// Nothing comes after them, so they are only attended to; the room is written over.
    Nowhere(&'a mut KeyValueCache),
}

#[derive(Debug)]
pub(super) struct Block {
    /// Before the attention and before the feed-forward layer.
    norm: RmsNorm,
    projection: Linear,
    query_bias: Tensor,
    value_bias: Tensor,
    /// Factors of normalised queries, one a head.
    query_factors: Option<Tensor>,
    output: Linear,
    mlp: GatedMlp,
    heads: usize,
    scale: f32,
}

impl Block {
    /// Reads `ln_wo_grad`, `attn` and `ffn`.
    pub fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let (width, heads) = (config.embed_dim, config.num_heads);
        let attention = weights.pp("attn");
        let start = Init::Normal(0.02);
        let back = Init::Normal(0.02 / (2.0 * config.depth as f32).sqrt());
        let query_factors = match config.attn_l2_norm {
            true => {
                let start = Init::Constant(4f32.ln());
                let stored = attention.get("scale_mul_1H11", &[1, heads, 1, 1], start)?;
                let factors = stored
                    .clamp(f32::NEG_INFINITY, LARGEST_FACTOR.ln())?
                    .exp()?;
                Some(factors.reshape((heads, 1))?)
            }
            false => None,
        };
        let projection = attention.pp("qkv_proj");
        let (norm, ffn) = (weights.pp("ln_wo_grad"), weights.pp("ffn"));
        let names = GatedMlpNames::LLAMA;
        Ok(Self {
            norm: RmsNorm::load(&norm, width, config.norm_eps, RmsNormKind::Weight)?,
            projection: Linear::load(&projection, width, 3 * width, false, start)?,
            query_bias: attention.get("q_bias", &[width], Init::Zeros)?,
            value_bias: attention.get("v_bias", &[width], Init::Zeros)?,
            // Normalised queries bring their own scale; the published one is a quarter of the usual.
            scale: match query_factors {
                Some(_) => 1.0,
                None => (0.25 / (config.head_dim() as f64).sqrt()) as f32,
            },
            query_factors,
            output: Linear::load(&attention.pp("proj"), width, width, true, back)?,
            mlp: GatedMlp::load(&ffn, names, width, config.inner(), false, start)?,
            heads,
        })
    }

    /// `[1, tokens, C]` to the same shape; `trace` sees `attn.qkv_proj`, `attn.attention`, `attn` and
    /// `ffn`.
    pub fn forward(
        &self,
        x: &Tensor,
        layer: usize,
        angles: &RotaryAngles,
        seen: &mut Seen,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (_, _, width) = x.dims3()?;
        let all = self.projection.forward(&self.norm.forward(x)?)?;
        trace.see("attn.qkv_proj", &all);
        let third = |index: usize| all.narrow(2, index * width, width);
        let mut queries = third(0)?.broadcast_add(&self.query_bias)?;
        let mut keys = third(1)?;
        let values = third(2)?.broadcast_add(&self.value_bias)?;
        if let Some(factors) = &self.query_factors {
            queries = self.normalised(&queries, Some(factors))?;
            keys = self.normalised(&keys, None)?;
        }
        let queries = ops::rotary_at(&queries, self.heads, angles)?;
        let keys = ops::rotary_at(&keys, self.heads, angles)?;
        let attended = match seen {
            Seen::Kept(part) => self.attend(layer, &queries, &keys, &values, part)?,
            Seen::Spans(spans) => {
                let options = AttentionOptions {
                    scale: self.scale,
                    ..AttentionOptions::new(self.heads, width / self.heads)
                };
                ops::span_attention(&queries, &keys, &values, spans.to_vec(), &options)?
            }
        };
        trace.see("attn.attention", &attended);
        let attended = self.output.forward(&attended)?;
        trace.see("attn", &attended);
        let x = (x + attended)?;
        let inner = self.mlp.forward(&self.norm.forward(&x)?)?;
        trace.see("ffn", &inner);
        x + inner
    }

    fn attend(
        &self,
        layer: usize,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        part: &mut Part,
    ) -> Result<Tensor> {
        let mut attended = Vec::with_capacity(part.tokens.len());
        let mut start = 0;
        for (sequence, count) in part.tokens.iter().copied().enumerate() {
            let own = |x: &Tensor| x.narrow(1, start, count)?.contiguous();
            let (queries, keys, values) = (own(queries)?, own(keys)?, own(values)?);
            start += count;
            let cache = &mut part.caches[sequence];
            let done = match &mut part.keep {
                Keep::Nowhere(room) => {
                    let new = (&keys, &values);
                    let (filled, scale) = (part.filled, self.scale);
                    cache.attend_beyond(layer, filled, new, &queries, self.heads, scale, room)?
                }
                Keep::Repeated(times) if sequence + 1 == part.tokens.len() => {
                    let repeated = |x: &Tensor| x.repeat((1, *times, 1));
                    let (keys, values) = (repeated(&keys)?, repeated(&values)?);
                    for cache in &mut part.caches[sequence..] {
                        cache.write(layer, part.filled, &keys, &values)?;
                    }
                    let end = part.filled + *times;
                    part.caches[sequence].attend(layer, &queries, self.heads, end, self.scale)?
                }
                Keep::Repeated(_) | Keep::Behind => {
                    cache.write(layer, part.filled, &keys, &values)?;
                    cache.attend(layer, &queries, self.heads, part.filled + count, self.scale)?
                }
            };
            attended.push(done);
        }
        Tensor::cat(&attended, 1)
    }

    /// Every head at length one, times its factor.
    fn normalised(&self, x: &Tensor, factors: Option<&Tensor>) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let heads = x.reshape((batch, tokens, self.heads, width / self.heads))?;
        let length = heads.sqr()?.sum_keepdim(3)?.sqrt()?;
        let mut heads = heads.broadcast_div(&length.clamp(1e-12, f32::MAX)?)?;
        if let Some(factors) = factors {
            heads = heads.broadcast_mul(factors)?;
        }
        heads.reshape((batch, tokens, width))
    }
}
