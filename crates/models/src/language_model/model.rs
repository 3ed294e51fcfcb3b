//! The forward pass.

use brisk_nn::ops::RotaryAngles;
use brisk_nn::{
    DType, Embedding, Init, KeyValueCache, Linear, RmsNorm, RmsNormKind, Tensor, Trace, Weights,
    check_finite,
};

use super::config::{Attention, LanguageModelConfig};
use super::layer::{Layer, Part};
use super::names::Names;
use crate::buffers::ROTARY;
use crate::{Error, Result};

/// What its errors call it.
const STAGE: &str = "language model";

/// A language model with its head.
#[derive(Debug)]
pub struct LanguageModel {
    config: LanguageModelConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// Absent where the body was loaded alone.
    head: Option<Linear>,
}

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The tokens.
    pub ids: &'a [u32],
    /// Position of the first one. Without a cache a sequence starts at 0.
    pub start: usize,
    /// Empty positions that stand before the sequence when blocks are counted; shorter than a
    /// block. They are never computed with.
    pub pad: usize,
    /// With causal attention: the tokens that are seen, one flag each; none: all. Others have positions
    /// and rows of their own, but no slots: those that are seen fill the slots from `start` on.
    pub seen: Option<&'a [bool]>,
}

impl<'a> Span<'a> {
    /// A whole sequence.
    pub fn whole(ids: &'a [u32]) -> Self {
        Self::from(ids, 0)
    }

    /// Tokens from position `start`.
    pub fn from(ids: &'a [u32], start: usize) -> Self {
        Self {
            ids,
            start,
            pad: 0,
            seen: None,
        }
    }

    /// Of these tokens only some are seen.
    pub fn seeing(self, seen: &'a [bool]) -> Self {
        Self {
            seen: Some(seen),
            ..self
        }
    }
}

/// Where consecutive tokens of one sequence stand.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// How many they are.
    pub tokens: usize,
    /// As [`Span::start`].
    pub start: usize,
    /// As [`Span::pad`].
    pub pad: usize,
}

impl From<&Span<'_>> for Place {
    fn from(span: &Span) -> Self {
        Self {
            tokens: span.ids.len(),
            start: span.start,
            pad: span.pad,
        }
    }
}

/// Which rows of a forward pass are computed to the end.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// Every token.
    All,
    /// These, as (span, index in the span), in ascending order.
    Some(&'a [(usize, usize)]),
    /// None: only keys and values are wanted.
    None,
}

impl LanguageModel {
    /// Loads the model. LLaDA's names may lack the leading `model.` of the published files.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of
    /// another shape.
    pub fn load(config: &LanguageModelConfig, weights: &Weights) -> Result<Self> {
        let names = Names::of(config.family);
        // LLaDA's class has its body under `transformer`; files put the wrapper's `model` before it.
        let wrapped = format!("model.{}.{}.weight", names.body, names.embedding);
        let outer = if weights.contains(&wrapped) {
            weights.pp("model")
        } else {
            weights.clone()
        };
        let body = outer.pp(names.body);
        let mut model = Self::load_body(config, &body)?;
        let (rows, width) = (config.vocab_size, config.hidden_size);
        model.head = Some(if config.tied {
            let table = body.pp(names.embedding);
            Linear::tied(&table, "weight", model.embedding.table())?
        } else {
            Linear::load(&outer.pp(names.head), width, rows, false, Init::FanIn(1.0))?
        });
        // Files of tied models may store the table twice.
        let heads = ["", "model."].map(|outer| format!("{outer}{}.weight", names.head));
        let mut ignored = ROTARY.to_vec();
        if config.tied {
            ignored.extend(heads.iter().map(String::as_str));
        }
        weights.finish(&ignored)?;
        Ok(model)
    }

    /// Loads what stands below the body's own path; whoever calls finishes the weights. Without a head there
    /// are no logits.
    ///
    /// # Errors
    /// An invalid configuration, or a file that cannot be read.
    pub fn load_body(config: &LanguageModelConfig, body: &Weights) -> Result<Self> {
        config.validate()?;
        let names = Names::of(config.family);
        let (rows, width) = (config.vocab_size, config.hidden_size);
        let table = body.pp(names.embedding);
        let embedding = Embedding::load(&table, rows, width, Init::FanIn(1.0))?;
        let layers = (0..config.num_layers)
            .map(|index| {
                let path = Names::layer(config, index);
                Layer::load(config, &names, index, &body.pp(path))
            })
            .collect::<Result<_>>()?;
        let norm = RmsNorm::load(
            &body.pp(names.norm),
            config.hidden_size,
            config.rms_norm_eps,
            RmsNormKind::Weight,
        )?;
        Ok(Self {
            config: config.clone(),
            embedding,
            layers,
            norm,
            head: None,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &LanguageModelConfig {
        &self.config
    }

    /// An empty cache for a sequence of `positions`.
    ///
    /// # Errors
    /// More positions than the model knows.
    pub fn cache(&self, positions: usize) -> Result<KeyValueCache> {
        if positions > self.config.context {
            return Err(Error::Shape(format!(
                "a sequence of {positions} tokens, but the model knows {} positions",
                self.config.context
            )));
        }
        let config = &self.config;
        let location = self.embedding.table().location();
        KeyValueCache::at(
            &location,
            self.layers.len(),
            positions,
            config.num_key_value_heads,
            config.head_dim,
        )
    }

    /// Logits `[T,V]` of whole sequences, packed one after another.
    ///
    /// # Errors
    /// As [`Self::hidden`].
    pub fn forward(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let spans: Vec<Span> = sequences.iter().map(|ids| Span::whole(ids)).collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = spans.iter().map(|_| None).collect();
        self.logits(&self.hidden(&spans, &mut caches, Rows::All)?)
    }

    /// Last hidden states `[n,D]` of the wanted rows, after the final norm.
    ///
    /// With a cache, keys and values of the span's positions are written to it, and queries see
    /// everything the cache holds: with full attention all its positions, with block-causal
    /// attention those up to the end of the query's block.
    ///
    /// # Errors
    /// Ids outside the vocabulary, empty spans, positions that the model or the cache does not
    /// have, or a non-finite activation.
    pub fn hidden(
        &self,
        spans: &[Span],
        caches: &mut [Option<&mut KeyValueCache>],
        rows: Rows,
    ) -> Result<Tensor> {
        self.hidden_traced(spans, caches, rows, &mut Trace::none())
    }

    /// As [`Self::hidden`]; `trace` sees `embedding`, every `layers.{i}` with its parts
    /// (`attention_norm`, `keys`, `attention`, `mlp_norm`, `mlp`), and `norm`.
    ///
    /// # Errors
    /// As [`Self::hidden`].
    pub fn hidden_traced(
        &self,
        spans: &[Span],
        caches: &mut [Option<&mut KeyValueCache>],
        rows: Rows,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let places: Vec<Place> = spans.iter().map(Place::from).collect();
        let seen: Vec<Option<&[bool]>> = spans.iter().map(|span| span.seen).collect();
        let ids: Vec<u32> = spans.iter().flat_map(|span| span.ids).copied().collect();
        let parts = self.parts(&places, &seen, caches)?;
        let layers = self.layers.len();
        self.through_layers(&self.embed(&ids)?, &parts, caches, rows, layers, trace)
    }

    /// As [`Self::hidden_traced`], of tokens whose embeddings `[T,D]` are given.
    ///
    /// # Errors
    /// As [`Self::hidden`]; another number of embeddings than tokens, or of another width.
    pub fn hidden_of(
        &self,
        embeddings: &Tensor,
        places: &[Place],
        caches: &mut [Option<&mut KeyValueCache>],
        rows: Rows,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let parts = self.parts(places, &[], caches)?;
        let tokens: usize = parts.iter().map(|part| part.tokens).sum();
        if embeddings.dims() != [tokens, self.config.hidden_size] {
            return Err(Error::Shape(format!(
                "embeddings {:?} for {tokens} tokens; `hidden_size` is {}",
                embeddings.dims(),
                self.config.hidden_size
            )));
        }
        self.through_layers(embeddings, &parts, caches, rows, self.layers.len(), trace)
    }

    /// The states `[T,D]` of one sequence whose embeddings `[T,D]` are given, as they are before the last `skipped`
    /// layers, without the final norm; with none skipped as [`Self::hidden_of`].
    ///
    /// # Errors
    /// As [`Self::hidden_of`]; more layers skipped than there are.
    pub fn states_of(
        &self,
        embeddings: &Tensor,
        skipped: usize,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (tokens, width) = embeddings.dims2()?;
        let Some(layers) = self.layers.len().checked_sub(skipped) else {
            return Err(Error::Shape(format!(
                "{skipped} layers skipped of {}",
                self.layers.len()
            )));
        };
        if width != self.config.hidden_size {
            return Err(Error::Shape(format!(
                "embeddings of width {width}; `hidden_size` is {}",
                self.config.hidden_size
            )));
        }
        let (start, pad) = (0, 0);
        let caches = &mut [None];
        let parts = self.parts(&[Place { tokens, start, pad }], &[], caches)?;
        self.through_layers(embeddings, &parts, caches, Rows::All, layers, trace)
    }

    /// Through the first `layers`; behind all of them stands the norm.
    fn through_layers(
        &self,
        embeddings: &Tensor,
        parts: &[Part],
        caches: &mut [Option<&mut KeyValueCache>],
        rows: Rows,
        layers: usize,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let wanted = wanted_rows(parts, rows)?;
        let mut x = embeddings.unsqueeze(0)?;
        trace.see("embedding", &x);
        let scaling = self.config.rope_scaling as f32;
        let positions: Vec<f32> = parts
            .iter()
            .flat_map(|part| part.start..part.start + part.tokens)
            .map(|position| position as f32 / scaling)
            .collect();
        let theta = self.config.rope_theta as f32;
        let angles = RotaryAngles::at(self.config.rotary_dim, theta, &positions);
        let last = self.layers.len() - 1;
        for (index, layer) in self.layers.iter().enumerate().take(layers) {
            let name = format!("layers.{index}");
            let queries = if index == last {
                wanted.as_deref()
            } else {
                None
            };
            let inner = &mut trace.within(&name);
            x = layer.forward(&x, parts, caches, index, queries, &angles, inner)?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        let count = x.dim(1)?;
        if count > 0 && layers == self.layers.len() {
            x = self.norm.forward(&x)?;
            trace.see("norm", &x);
        }
        x.reshape((count, self.config.hidden_size))
    }

    /// Logits `[n,V]` of hidden states `[n,D]`.
    ///
    /// # Errors
    /// Hidden states of another width, or a body that was loaded alone.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        if hidden.dim(0)? == 0 {
            let shape = (0, self.config.vocab_size);
            return Tensor::zeros(shape, DType::F32);
        }
        match &self.head {
            Some(head) => head.forward_wide(hidden),
            None => Err(Error::Config(
                "the language model was loaded without its head".into(),
            )),
        }
    }

    /// Checks the spans and lays them one after another; `seen` is as in [`Span::seen`], or empty.
    fn parts(
        &self,
        spans: &[Place],
        seen: &[Option<&[bool]>],
        caches: &[Option<&mut KeyValueCache>],
    ) -> Result<Vec<Part>> {
        if spans.len() != caches.len() {
            return Err(Error::Shape(format!(
                "{} spans, but {} caches (or absences of one)",
                spans.len(),
                caches.len()
            )));
        }
        let mut offset = 0;
        let mut parts = Vec::with_capacity(spans.len());
        for (index, (span, cache)) in spans.iter().zip(caches).enumerate() {
            let seen = seen.get(index).copied().flatten();
            let tokens = span.tokens;
            let end = span.start.saturating_add(tokens);
            if tokens == 0 {
                return Err(Error::Shape("a sequence without tokens".into()));
            }
            let limit = match cache {
                Some(cache) => cache.capacity(),
                None => end,
            };
            if end > limit || end > self.config.context || (cache.is_none() && span.start > 0) {
                return Err(Error::Shape(format!(
                    "tokens at positions {} to {end}: {}",
                    span.start,
                    if cache.is_none() && span.start > 0 {
                        "without a cache a sequence starts at 0".to_owned()
                    } else {
                        format!(
                            "the model knows {} positions, the cache {limit}",
                            self.config.context
                        )
                    }
                )));
            }
            parts.push(Part {
                offset,
                tokens,
                start: span.start,
                ends: self.ends(span, seen, limit)?,
                kept: seen.and_then(|seen| kept(offset, seen)),
            });
            offset += tokens;
        }
        Ok(parts)
    }

    /// One past the last slot that each query of a span sees; keys end at `limit`.
    fn ends(&self, span: &Place, seen: Option<&[bool]>, limit: usize) -> Result<Vec<usize>> {
        let (tokens, attention) = (span.tokens, self.config.attention);
        if let Some(seen) = seen {
            if attention != Attention::CAUSAL || seen.len() != tokens {
                return Err(Error::Shape(format!(
                    "{} flags of what is seen of {tokens} tokens; expected one each, and causal attention",
                    seen.len()
                )));
            }
            let ends = seen.iter().scan(span.start, |end, seen| {
                *end += usize::from(*seen);
                Some(*end)
            });
            return Ok(ends.collect());
        }
        let end = |position: usize| match attention {
            Attention::Full => limit,
            Attention::BlockCausal(block) => {
                let end = ((position + span.pad) / block + 1) * block;
                (end - span.pad).min(limit)
            }
        };
        Ok((span.start..span.start + tokens).map(end).collect())
    }

    /// Embeddings of tokens, `[T,D]`.
    ///
    /// # Errors
    /// Ids outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embedding.forward(ids)
    }
}

/// Packed indices of the tokens that are seen; none: all.
fn kept(offset: usize, seen: &[bool]) -> Option<Vec<u32>> {
    if seen.iter().all(|seen| *seen) {
        return None;
    }
    let places = (offset..).zip(seen).filter(|(_, seen)| **seen);
    Some(places.map(|(place, _)| place as u32).collect())
}

/// Packed indices of the wanted rows; none: all.
fn wanted_rows(parts: &[Part], rows: Rows) -> Result<Option<Vec<u32>>> {
    let listed = match rows {
        Rows::All => return Ok(None),
        Rows::None => return Ok(Some(Vec::new())),
        Rows::Some(listed) => listed,
    };
    let mut wanted = Vec::with_capacity(listed.len());
    for &(span, index) in listed {
        match parts.get(span) {
            Some(part) if index < part.tokens => wanted.push((part.offset + index) as u32),
            _ => {
                return Err(Error::Shape(format!(
                    "row {index} of span {span} was asked for, which does not exist"
                )));
            }
        }
    }
    if !wanted.is_sorted() {
        return Err(Error::Shape("wanted rows must ascend".into()));
    }
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::super::layer::select;
    use super::*;

    #[test]
    fn selecting_no_rows_keeps_the_width() {
        let x = Tensor::zeros((1, 3, 4), DType::F32).unwrap();
        assert_eq!(select(&x, Some(&[])).unwrap().dims(), [1, 0, 4]);
        assert_eq!(select(&x, Some(&[2])).unwrap().dims(), [1, 1, 4]);
    }
}
