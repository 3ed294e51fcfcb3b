//! One decoder layer over packed sequences.

use brisk_nn::ops::{self, AttentionOptions, AttentionSpan, Epilogue, Residual, RotaryAngles};
use brisk_nn::{
    GatedMlp, Init, KeyValueCache, Linear, Location, MixtureOfExperts, QueryKeyNorms, RmsNorm,
    RmsNormKind, Tensor, Trace, Weights,
};

use super::config::{LanguageModelConfig, QueryKeyNorm};
use super::names::{Names, Projections};
use crate::{Error, Result};

/// One sequence's part of a packed run, and what its queries see.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// First token in the packed run.
    pub offset: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Position of the first token in its sequence, and the slot of its keys.
    pub start: usize,
    /// One past the last slot that each query sees.
    pub ends: Vec<usize>,
    /// Tokens that are seen, by packed index; none: all.
    pub kept: Option<Vec<u32>>,
}

impl Part {
    /// The rows of the part's tokens that are seen.
    fn seen(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kept {
            Some(rows) => select(x, Some(rows)),
            None => x.narrow(1, self.offset, self.tokens),
        }
    }

    /// Whether the tokens that are seen are the part's first, so that queries see a run of its keys.
    fn sees_a_beginning(&self) -> bool {
        let rows = self.kept.iter().flatten();
        rows.zip(self.offset..)
            .all(|(row, first)| *row as usize == first)
    }
}

/// Which queries a layer answers: all tokens, or some of them by packed index, ascending.
pub(super) type Queries<'a> = Option<&'a [u32]>;

#[derive(Debug)]
enum Projection {
    Separate(Box<[Linear; 3]>),
    Fused(Linear),
}

#[derive(Debug)]
enum FeedForward {
    Dense(GatedMlp),
    Experts(MixtureOfExperts),
}

#[derive(Debug)]
pub(super) struct Layer {
    attention_norm: RmsNorm,
    projection: Projection,
    query_key_norms: Option<QueryKeyNorms>,
    to_out: Linear,
    mlp_norm: RmsNorm,
    mlp: FeedForward,
    config: LanguageModelConfig,
}

impl Layer {
    pub(super) fn load(
        config: &LanguageModelConfig,
        names: &Names,
        index: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let (width, queries, keys) = (config.hidden_size, config.query_width(), config.key_width());
        let linear = |name: &str, from: usize, to: usize, bias: bool| {
            Linear::load(&weights.pp(name), from, to, bias, Init::FanIn(1.0))
        };
        // As LLaDA starts (`init_fn: mitchell`): what all layers add together has variance 1.
        let back = Init::FanIn(1.0 / (2.0 * config.num_layers as f32).sqrt());
        let norm = |name: &str, width: usize| {
            RmsNorm::load(
                &weights.pp(name),
                width,
                config.rms_norm_eps,
                RmsNormKind::Weight,
            )
        };
        let bias = config.qkv_bias;
        let projection = match names.projections {
            Projections::Separate([q, k, v]) => Projection::Separate(Box::new([
                linear(q, width, queries, bias)?,
                linear(k, width, keys, bias)?,
                linear(v, width, keys, bias)?,
            ])),
            Projections::Fused(name) => {
                Projection::Fused(linear(name, width, queries + 2 * keys, bias)?)
            }
        };
        let (norms, eps) = ([names.query_norm, names.key_norm], config.rms_norm_eps);
        let query_key_norms = match config.query_key_norm {
            QueryKeyNorm::None => None,
            QueryKeyNorm::Head => {
                let dim = config.head_dim;
                Some(QueryKeyNorms::load_by_head(weights, norms, dim, eps)?)
            }
            QueryKeyNorm::Projection => {
                Some(QueryKeyNorms::load(weights, norms, [queries, keys], eps)?)
            }
        };
        let inside = if names.mlp.is_empty() {
            weights.clone()
        } else {
            weights.pp(names.mlp)
        };
        let mlp = match &config.experts {
            Some(experts) if config.has_experts(index) => FeedForward::Experts(
                MixtureOfExperts::load(&inside, names.experts, width, experts)?,
            ),
            _ => FeedForward::Dense(GatedMlp::load(
                &inside,
                names.mlp_parts,
                width,
                config.intermediate_size,
                config.mlp_bias,
                back,
            )?),
        };
        Ok(Self {
            attention_norm: norm(names.attention_norm, width)?,
            projection,
            query_key_norms,
            to_out: Linear::load(
                &weights.pp(names.output),
                queries,
                width,
                config.output_bias,
                back,
            )?,
            mlp_norm: norm(names.mlp_norm, width)?,
            mlp,
            config: config.clone(),
        })
    }

    /// `x` `[1,T,D]` of all parts to the rows of `queries` `[1,n,D]`. Keys and values of every
    /// token go to the part's cache, where it has one.
    #[allow(clippy::too_many_arguments)] // a pass and where its parts lie
    pub(super) fn forward(
        &self,
        x: &Tensor,
        parts: &[Part],
        caches: &mut [Option<&mut KeyValueCache>],
        layer: usize,
        queries: Queries,
        angles: &RotaryAngles,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let config = &self.config;
        let a = self.attention_norm.forward(x)?;
        trace.see("attention_norm", &a);
        let (q, k, v) = self.project(&a, queries)?;
        let ends = parts.iter().flat_map(|part| &part.ends).copied();
        let mut ends: Vec<usize> = ends.collect();
        if let Some(rows) = queries {
            ends = rows.iter().map(|row| ends[*row as usize]).collect();
        }
        let k = ops::rotary_at(&k, config.num_key_value_heads, angles)?;
        trace.see("keys", &k);
        for (part, cache) in parts.iter().zip(caches.iter_mut()) {
            if let Some(cache) = cache {
                cache.write(layer, part.start, &part.seen(&k)?, &part.seen(&v)?)?;
            }
        }
        if ends.is_empty() {
            return x.narrow(1, 0, 0);
        }
        let q = match queries {
            None => ops::rotary_at(&q, config.num_heads, angles)?,
            Some(rows) => ops::rotary_at(&q, config.num_heads, &angles.select(rows))?,
        };
        let attended = self.attend(&q, &k, &v, parts, caches, layer, queries, &ends)?;
        let x = select(x, queries)?;
        // On a card an addition is a launch of its own, unless the layer before takes it along.
        let fuses = x.location() != Location::HOST && !trace.is_watched();
        let x = match fuses {
            true => self.to_out.forward_with(&attended, &residual(&x))?,
            false => {
                let attended = self.to_out.forward(&attended)?;
                trace.see("attention", &attended);
                ops::add(&x, &attended)?
            }
        };

        let b = self.mlp_norm.forward(&x)?;
        trace.see("mlp_norm", &b);
        let hidden = match &self.mlp {
            FeedForward::Dense(mlp) if fuses => return mlp.forward_with(&b, &residual(&x)),
            FeedForward::Dense(mlp) => mlp.forward(&b)?,
            FeedForward::Experts(experts) => experts.forward(&b)?,
        };
        trace.see("mlp", &hidden);
        ops::add(&x, &hidden)
    }

    /// Queries of the wanted rows, keys and values of all.
    fn project(&self, a: &Tensor, queries: Queries) -> Result<(Tensor, Tensor, Tensor)> {
        let config = &self.config;
        let (mut q, mut k, v) = match &self.projection {
            Projection::Separate(linears) => {
                let [q, k, v] = &**linears;
                let wanted = select(a, queries)?;
                let q = if wanted.dim(1)? == 0 {
                    wanted
                } else {
                    q.forward(&wanted)?
                };
                (q, k.forward(a)?, v.forward(a)?)
            }
            Projection::Fused(linear) => {
                let all = linear.forward(a)?;
                let (queries_width, keys) = (config.query_width(), config.key_width());
                let q = select(&all.narrow(2, 0, queries_width)?.contiguous()?, queries)?;
                let k = all.narrow(2, queries_width, keys)?.contiguous()?;
                let v = all.narrow(2, queries_width + keys, keys)?.contiguous()?;
                (q, k, v)
            }
        };
        if let Some(norms) = &self.query_key_norms {
            if q.dim(1)? > 0 {
                q = norms.query(&q)?;
            }
            k = norms.key(&k)?;
        }
        Ok((q, k, v))
    }

    /// Each part's queries over its own keys: no key of another sequence is ever computed with.
    #[allow(clippy::too_many_arguments)] // the pieces of one attention
    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        parts: &[Part],
        caches: &[Option<&mut KeyValueCache>],
        layer: usize,
        queries: Queries,
        ends: &[usize],
    ) -> Result<Tensor> {
        let config = &self.config;
        let (heads, key_heads) = (config.num_heads, config.num_key_value_heads);
        let options = AttentionOptions {
            key_value_heads: key_heads,
            ..AttentionOptions::new(heads, config.head_dim)
        };
        // Gradients don't pass through packed keys.
        let trained = [q, k, v].iter().any(|x| x.track_op());
        let (mut results, mut spans) = (Vec::new(), Vec::new());
        let mut next = 0;
        for (part, cache) in parts.iter().zip(caches) {
            let first = next;
            next = match queries {
                None => part.offset + part.tokens,
                Some(rows) => {
                    rows.partition_point(|row| (*row as usize) < part.offset + part.tokens)
                }
            };
            if first == next {
                continue;
            }
            let packed;
            let kept = match cache {
                Some(cache) => Some((&**cache, layer)),
                None if trained => None,
                None => {
                    let (keys, values) = (part.seen(k)?, part.seen(v)?);
                    packed = KeyValueCache::of(&keys, &values, key_heads, config.head_dim)?;
                    Some((&packed, 0))
                }
            };
            if let Some((cache, layer)) = kept {
                let run = q.narrow(1, first, next - first)?;
                let ends = &ends[first..next];
                results.push(cache.attend_each(layer, &run, heads, ends, options.scale)?);
                continue;
            }
            if !part.sees_a_beginning() {
                return Err(Error::Shape(
                    "training runs over sequences only whose padding stands behind them".into(),
                ));
            }
            // Runs of queries that see the same keys, or one more each.
            let mut from = first;
            while from < next {
                let run = run(&ends[from..next]);
                let causal = (run.len() > 1 && run[0] < run[1]).then(|| run[0] - 1);
                spans.push(AttentionSpan {
                    queries: from..from + run.len(),
                    keys: part.offset..part.offset + run[run.len() - 1],
                    causal,
                });
                from += run.len();
            }
        }
        if !spans.is_empty() {
            if !results.is_empty() {
                return Err(Error::Shape(
                    "training runs over sequences without caches only".into(),
                ));
            }
            return ops::span_attention(q, k, v, spans, &options);
        }
        match &results[..] {
            [] => Err(Error::Shape("an attention without queries".into())),
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 1)?),
        }
    }
}

/// The first queries of some, by how many keys they see, that see the same number or one more each.
fn run(ends: &[usize]) -> &[usize] {
    let step = match ends {
        [first, second, ..] if *first > 0 && *second == first + 1 => 1,
        _ => 0,
    };
    let fits = ends.windows(2).take_while(|pair| pair[1] == pair[0] + step);
    &ends[..(fits.count() + 1).min(ends.len())]
}

/// What adds the residual stream.
fn residual(x: &Tensor) -> Epilogue<'_> {
    Epilogue {
        residual: Some(Residual::Same(x)),
        ..Epilogue::default()
    }
}

/// The wanted rows of `[1,T,C]`.
pub(super) fn select(x: &Tensor, queries: Queries) -> Result<Tensor> {
    let Some(rows) = queries else {
        return Ok(x.clone());
    };
    if rows.is_empty() {
        return x.narrow(1, 0, 0);
    }
    let rows = Tensor::from_slice(rows, rows.len())?;
    x.index_select(&rows, 1)
}
