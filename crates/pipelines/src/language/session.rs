//! Sequences that decode together: each says which forward pass it needs next, and one packed pass
//! serves all of them.

use brisk_models::language_model::{LanguageModel, Rows, Span};
use brisk_nn::KeyValueCache;

use super::algorithm::CacheMode;
use super::request::TextPlan;
use crate::error::{Error, Result};
use crate::events::Control;

/// A forward pass that one sequence needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    /// Positions to compute.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Positions whose logits are wanted, ascending.
    pub(super) wanted: Vec<usize>,
}

/// One sequence being decoded.
pub(super) trait Decoder {
    /// The pass it needs next; none: it is done.
    fn next(&mut self) -> Option<Pass>;
    /// Takes the wanted rows of that pass.
    fn take(&mut self, logits: Vec<Vec<f32>>) -> Result<()>;
    /// The canvas, masks included.
    fn ids(&self) -> &[u32];
}

/// What became of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Prompt and answer.
    pub ids: Vec<u32>,
    /// Number of prompt tokens.
    pub prompt: usize,
    /// Forward passes that this sequence took part in.
    pub forwards: usize,
    /// Length of the answer up to its first end token, that token not counted.
    pub answer: usize,
}

/// A sequence with its caches.
pub(super) struct Sequence<'a> {
    pub(super) decoder: Box<dyn Decoder + 'a>,
    /// Number of prompt tokens.
    pub(super) prompt: usize,
    /// Empty positions before the sequence, for block borders.
    pub(super) pad: usize,
    caches: Vec<KeyValueCache>,
    forwards: usize,
}

/// Decodes a batch.
pub(super) struct Session<'a> {
    model: &'a LanguageModel,
    plan: &'a TextPlan,
    cached: bool,
    guidance: f32,
    sequences: Vec<Sequence<'a>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        model: &'a LanguageModel,
        plan: &'a TextPlan,
        cache: CacheMode,
        guidance: f64,
    ) -> Self {
        Self {
            model,
            plan,
            cached: cache != CacheMode::None,
            guidance: guidance as f32,
            sequences: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        decoder: Box<dyn Decoder + 'a>,
        prompt: usize,
        pad: usize,
    ) -> Result<()> {
        let mut caches = Vec::new();
        if self.cached {
            for _ in 0..self.branches() {
                caches.push(self.model.cache(decoder.ids().len())?);
            }
        }
        self.sequences.push(Sequence {
            decoder,
            prompt,
            pad,
            caches,
            forwards: 0,
        });
        Ok(())
    }

    /// With guidance every sequence runs a second time with its prompt hidden.
    fn branches(&self) -> usize {
        if self.guidance > 0.0 { 2 } else { 1 }
    }

    /// Runs until every sequence is done. `show` sees every canvas after every pass.
    pub(super) fn run(
        &mut self,
        control: &Control,
        show: &mut dyn FnMut(usize, &[u32]),
    ) -> Result<()> {
        loop {
            control.check()?;
            let passes: Vec<Option<Pass>> = self
                .sequences
                .iter_mut()
                .map(|sequence| sequence.decoder.next())
                .collect();
            if passes.iter().all(Option::is_none) {
                return Ok(());
            }
            let answers = self.forward(&passes)?;
            let served = self.sequences.iter_mut().zip(answers).enumerate();
            for (index, (sequence, answer)) in served {
                if let Some(rows) = answer {
                    sequence.forwards += 1;
                    sequence.decoder.take(rows)?;
                    show(index, sequence.decoder.ids());
                }
            }
        }
    }

    /// One packed forward pass; the wanted rows of each sequence.
    fn forward(&mut self, passes: &[Option<Pass>]) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let branches = self.branches();
        let mask = self.plan.mask;
        let mut tokens: Vec<Vec<u32>> = Vec::new();
        let mut shapes: Vec<(usize, usize)> = Vec::new();
        let mut rows: Vec<(usize, usize)> = Vec::new();
        let mut caches: Vec<Option<&mut KeyValueCache>> = Vec::new();
        for (sequence, pass) in self.sequences.iter_mut().zip(passes) {
            let Some(pass) = pass else { continue };
            let mut kept = sequence.caches.iter_mut();
            for branch in 0..branches {
                let mut ids = sequence.decoder.ids()[pass.start..pass.end].to_vec();
                if branch == 1 {
                    let hidden = sequence.prompt.saturating_sub(pass.start).min(ids.len());
                    ids[..hidden].fill(mask);
                }
                rows.extend(
                    pass.wanted
                        .iter()
                        .map(|position| (tokens.len(), position - pass.start)),
                );
                tokens.push(ids);
                shapes.push((pass.start, sequence.pad));
                caches.push(kept.next());
            }
        }
        let spans: Vec<Span> = tokens
            .iter()
            .zip(&shapes)
            .map(|(ids, &(start, pad))| Span { ids, start, pad })
            .collect();
        let wanted = if rows.is_empty() {
            Rows::None
        } else {
            Rows::Some(&rows)
        };
        let hidden = self.model.hidden(&spans, &mut caches, wanted)?;
        let logits = self.model.logits(&hidden)?;
        if !brisk_nn::ops::all_finite(&logits)? {
            return Err(Error::Nn(brisk_nn::Error::NonFinite {
                stage: "language model".into(),
                layer: "head".into(),
            }));
        }
        let mut logits = logits.to_vec2::<f32>()?.into_iter();
        Ok(passes
            .iter()
            .map(|pass| {
                let count = pass.as_ref()?.wanted.len();
                let mut rows: Vec<Vec<f32>> = logits.by_ref().take(count).collect();
                if branches == 2 {
                    let free = logits.by_ref().take(count);
                    for (row, free) in rows.iter_mut().zip(free) {
                        for (logit, free) in row.iter_mut().zip(free) {
                            *logit = free + (self.guidance + 1.0) * (*logit - free);
                        }
                    }
                }
                Some(rows)
            })
            .collect())
    }

    /// What became of every sequence; canvases are cut to `lengths`.
    pub(super) fn finish(self, lengths: &[usize]) -> Vec<Generation> {
        let ends = &self.plan.ends;
        self.sequences
            .into_iter()
            .zip(lengths)
            .map(|(sequence, &length)| {
                let ids = sequence.decoder.ids();
                let ids = ids[..length.min(ids.len())].to_vec();
                let answer = ids[sequence.prompt..]
                    .iter()
                    .position(|id| ends.contains(id))
                    .unwrap_or(ids.len() - sequence.prompt);
                Generation {
                    prompt: sequence.prompt,
                    forwards: sequence.forwards,
                    answer,
                    ids,
                }
            })
            .collect()
    }
}
