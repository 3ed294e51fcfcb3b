//! Sequences that decode together: each says which forward pass it needs next, and one packed pass
//! serves all of them.

use brisk_models::language_model::{LanguageModel, Rows, Span};
use brisk_nn::KeyValueCache;

use rayon::prelude::*;

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
pub(super) trait Decoder: Send {
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

/// Passes that share one forward pass of the model.
struct Packed<'s> {
    tokens: Vec<Vec<u32>>,
    /// Position of the first token, and empty positions before the sequence.
    places: Vec<(usize, usize)>,
    /// Wanted rows: sequence, index in it.
    rows: Vec<(usize, usize)>,
    caches: Vec<Option<&'s mut KeyValueCache>>,
}

impl<'s> Packed<'s> {
    fn new(running: &'s mut [(&mut Sequence<'_>, &Pass)], branches: usize, mask: u32) -> Self {
        let mut packed = Self {
            tokens: Vec::new(),
            places: Vec::new(),
            rows: Vec::new(),
            caches: Vec::new(),
        };
        for (sequence, pass) in running {
            let sequence = &mut **sequence;
            let mut kept = sequence.caches.iter_mut();
            for branch in 0..branches {
                let mut ids = sequence.decoder.ids()[pass.start..pass.end].to_vec();
                if branch == 1 {
                    let hidden = sequence.prompt.saturating_sub(pass.start).min(ids.len());
                    ids[..hidden].fill(mask);
                }
                let index = packed.tokens.len();
                let wanted = pass.wanted.iter();
                packed
                    .rows
                    .extend(wanted.map(|position| (index, position - pass.start)));
                packed.tokens.push(ids);
                packed.places.push((pass.start, sequence.pad));
                packed.caches.push(kept.next());
            }
        }
        packed
    }

    /// Logits of the wanted rows.
    fn run(mut self, model: &LanguageModel) -> Result<Vec<Vec<f32>>> {
        let spans: Vec<Span> = self
            .tokens
            .iter()
            .zip(&self.places)
            .map(|(ids, &(start, pad))| Span { ids, start, pad })
            .collect();
        let wanted = if self.rows.is_empty() {
            Rows::None
        } else {
            Rows::Some(&self.rows)
        };
        let hidden = model.hidden(&spans, &mut self.caches, wanted)?;
        let logits = model.logits(&hidden)?;
        if !brisk_nn::ops::all_finite(&logits)? {
            return Err(Error::Nn(brisk_nn::Error::NonFinite {
                stage: "language model".into(),
                layer: "head".into(),
            }));
        }
        Ok(logits.to_vec2::<f32>()?)
    }
}

/// Parameters up to which a model's weights are read from the caches.
pub(super) const CACHED_PARAMETERS: u64 = 8 << 20;

/// Forward passes to split a batch into. Weights that fit a core's cache are read from there by every
/// thread, so each thread takes sequences of its own and never waits for the others; larger weights
/// come from memory, once for all sequences.
fn parallel_groups(model: &LanguageModel) -> usize {
    if model.config().parameters() <= CACHED_PARAMETERS {
        rayon::current_num_threads()
    } else {
        1
    }
}

/// Splits consecutive sequences into at most `groups` runs of about the same number of tokens; the
/// number of sequences in each.
fn shares(lengths: &[usize], groups: usize) -> Vec<usize> {
    let total: usize = lengths.iter().sum();
    let (mut counts, mut before) = (vec![0; groups.max(1)], 0);
    for length in lengths {
        // By the sequence's middle, so that none is counted twice.
        let group = (2 * before + length) * counts.len() / (2 * total.max(1));
        let last = counts.len() - 1;
        counts[group.min(last)] += 1;
        before += length;
    }
    counts.retain(|count| *count > 0);
    counts
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

    /// The passes that are asked for, packed into one forward pass, or into one a thread; the wanted
    /// rows of each sequence.
    fn forward(&mut self, passes: &[Option<Pass>]) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let (model, mask, guidance) = (self.model, self.plan.mask, self.guidance);
        let branches = self.branches();
        let mut running: Vec<(&mut Sequence<'a>, &Pass)> = self
            .sequences
            .iter_mut()
            .zip(passes)
            .filter_map(|(sequence, pass)| Some((sequence, pass.as_ref()?)))
            .collect();
        let lengths: Vec<usize> = running.iter().map(|(_, p)| p.end - p.start).collect();
        let mut groups: Vec<Packed> = Vec::new();
        let mut rest = running.as_mut_slice();
        for count in shares(&lengths, parallel_groups(model)) {
            let (first, others) = rest.split_at_mut(count);
            groups.push(Packed::new(first, branches, mask));
            rest = others;
        }
        // From outside the pool every parallel loop would be a message to it and back; inside, the
        // whole pass is one.
        let rows: Result<Vec<Vec<Vec<f32>>>> = rayon::scope(|_| {
            groups
                .into_par_iter()
                .map(|group| group.run(model))
                .collect()
        });
        let mut rows = rows?.into_iter().flatten();
        Ok(passes
            .iter()
            .map(|pass| {
                let count = pass.as_ref()?.wanted.len();
                let mut own: Vec<Vec<f32>> = rows.by_ref().take(count).collect();
                if branches == 2 {
                    let free = rows.by_ref().take(count);
                    for (row, free) in own.iter_mut().zip(free) {
                        for (logit, free) in row.iter_mut().zip(free) {
                            *logit = free + (guidance + 1.0) * (*logit - free);
                        }
                    }
                }
                Some(own)
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

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn batches_are_split_evenly_and_completely() {
        assert_eq!(shares(&[32; 8], 2), [4, 4]);
        assert_eq!(shares(&[300, 32, 32, 32], 2), [1, 3]);
        assert_eq!(shares(&[7], 4), [1]);
        assert_eq!(shares(&[5, 5, 5], 1), [3]);
        for groups in 1..6 {
            let lengths = [9, 300, 1, 1, 40, 32, 77];
            let counts = shares(&lengths, groups);
            assert!(counts.len() <= groups && counts.iter().sum::<usize>() == lengths.len());
        }
    }
}
