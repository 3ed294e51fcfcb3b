//! Sequences that decode together: each says which forward pass it needs next, and one packed pass
//! serves all of them.

use std::sync::{Mutex, PoisonError};

use brisk_models::language_model::{LanguageModel, Rows, Span};
use brisk_nn::KeyValueCache;

use rayon::prelude::*;

use super::algorithm::CacheMode;
use super::decoding::DecodingPlan;
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

/// Sees (sequence, canvas) after every pass.
pub(super) type Show<'s> = &'s mut (dyn FnMut(usize, &[u32]) + Send);

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
            .map(|(ids, &(start, pad))| Span {
                pad,
                ..Span::from(ids, start)
            })
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

/// Whether each thread takes sequences of its own, and never waits for the others: it pays where the
/// weights fit a core's cache. Larger weights come from memory, once for all sequences.
fn apart(model: &LanguageModel) -> bool {
    model.config().parameters() <= CACHED_PARAMETERS
}

/// What all sequences share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    model: &'a LanguageModel,
    mask: u32,
    guidance: f32,
}

impl Shared<'_> {
    /// With guidance every sequence runs a second time with its prompt hidden.
    fn branches(self) -> usize {
        if self.guidance > 0.0 { 2 } else { 1 }
    }

    /// Runs until every one of `sequences` is done, one packed pass after another.
    fn decode(
        self,
        sequences: &mut [Sequence<'_>],
        first: usize,
        control: &Control,
        show: &Mutex<Show<'_>>,
    ) -> Result<()> {
        loop {
            control.check()?;
            let passes: Vec<Option<Pass>> = sequences
                .iter_mut()
                .map(|sequence| sequence.decoder.next())
                .collect();
            if passes.iter().all(Option::is_none) {
                return Ok(());
            }
            let answers = self.forward(sequences, &passes)?;
            for (index, (sequence, answer)) in sequences.iter_mut().zip(answers).enumerate() {
                if let Some(rows) = answer {
                    sequence.forwards += 1;
                    sequence.decoder.take(rows)?;
                    let mut show = show.lock().unwrap_or_else(PoisonError::into_inner);
                    show(first + index, sequence.decoder.ids());
                }
            }
        }
    }

    /// The passes that are asked for, packed into one; the wanted rows of each sequence.
    fn forward(
        self,
        sequences: &mut [Sequence<'_>],
        passes: &[Option<Pass>],
    ) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
        let branches = self.branches();
        let mut running: Vec<(&mut Sequence<'_>, &Pass)> = sequences
            .iter_mut()
            .zip(passes)
            .filter_map(|(sequence, pass)| Some((sequence, pass.as_ref()?)))
            .collect();
        let packed = Packed::new(&mut running, branches, self.mask);
        let mut rows = packed.run(self.model)?.into_iter();
        Ok(passes
            .iter()
            .map(|pass| {
                let count = pass.as_ref()?.wanted.len();
                let mut own: Vec<Vec<f32>> = rows.by_ref().take(count).collect();
                if branches == 2 {
                    let free = rows.by_ref().take(count);
                    for (row, free) in own.iter_mut().zip(free) {
                        for (logit, free) in row.iter_mut().zip(free) {
                            *logit = free + (self.guidance + 1.0) * (*logit - free);
                        }
                    }
                }
                Some(own)
            })
            .collect())
    }
}

/// Decodes a batch.
pub(super) struct Session<'a> {
    shared: Shared<'a>,
    plan: &'a DecodingPlan,
    cached: bool,
    sequences: Vec<Sequence<'a>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        model: &'a LanguageModel,
        plan: &'a DecodingPlan,
        cache: CacheMode,
        guidance: f64,
    ) -> Self {
        Self {
            shared: Shared {
                model,
                mask: plan.mask,
                guidance: guidance as f32,
            },
            plan,
            cached: cache != CacheMode::None,
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
            for _ in 0..self.shared.branches() {
                caches.push(self.shared.model.cache(decoder.ids().len())?);
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

    /// Runs until every sequence is done. `show` sees every canvas after every pass.
    pub(super) fn run(&mut self, control: &Control, show: Show<'_>) -> Result<()> {
        let show = Mutex::new(show);
        let (shared, sequences) = (self.shared, &mut self.sequences);
        // From outside the pool every parallel loop would be a message to it and back.
        rayon::scope(|_| {
            if !apart(shared.model) {
                return shared.decode(sequences, 0, control, &show);
            }
            sequences
                .par_iter_mut()
                .enumerate()
                .with_max_len(1)
                .try_for_each(|(index, sequence)| {
                    shared.decode(std::slice::from_mut(sequence), index, control, &show)
                })
        })
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
