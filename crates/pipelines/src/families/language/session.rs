//! Sequences that decode together: each says which forward pass it needs next, and one packed pass
//! serves all of them. They may come and go between passes; rule, mask and guidance are each one's own.

use std::sync::{Arc, Mutex, PoisonError};

use brisk_models::language_model::{LanguageModel, Rows, Span};
use brisk_nn::ops::Barred;
use brisk_nn::{KeyValueCache, Tokens};

use rayon::prelude::*;

use super::decoding::DecodingPlan;
use super::row::{Row, rows};
use crate::error::Result;
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

/// How one sequence is decoded.
pub(super) trait Decoder: Send {
    /// The pass it needs next; none: it is done.
    fn next(&mut self) -> Option<Pass>;
    /// Tokens to pass over in the rows of that pass, where the largest logit of each is all that it takes.
    fn barred(&self) -> Option<Vec<(u32, Barred)>>;
    /// Takes the wanted rows of that pass.
    fn take(&mut self, rows: Vec<Row>) -> Result<()>;
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

/// A sequence that comes in.
pub(super) struct Newcomer {
    pub(super) decoder: Box<dyn Decoder>,
    pub(super) plan: Arc<DecodingPlan>,
    /// Number of prompt tokens.
    pub(super) prompt: usize,
    /// Empty positions before the sequence, for block borders.
    pub(super) pad: usize,
    /// Positions that are kept in the end.
    pub(super) length: usize,
    /// Strength of guidance; above 0 every pass runs a second time with the prompt hidden.
    pub(super) guidance: f32,
    /// Whether keys and values are kept between passes.
    pub(super) cached: bool,
}

/// A sequence with its caches.
struct Sequence {
    own: Newcomer,
    /// One a branch, where they are kept.
    caches: Vec<KeyValueCache>,
    forwards: usize,
    /// The pass that was asked for and not run to its end.
    pending: Option<Pass>,
}

impl Sequence {
    fn new(own: Newcomer, model: &LanguageModel) -> Result<Self> {
        let mut sequence = Self {
            own,
            caches: Vec::new(),
            forwards: 0,
            pending: None,
        };
        if sequence.own.cached {
            let positions = sequence.ids().len();
            let caches = (0..sequence.branches()).map(|_| model.cache(positions));
            sequence.caches = caches.collect::<brisk_nn::Result<_>>()?;
        }
        Ok(sequence)
    }

    fn branches(&self) -> usize {
        if self.own.guidance > 0.0 { 2 } else { 1 }
    }

    fn ids(&self) -> &[u32] {
        self.own.decoder.ids()
    }

    /// Settles which pass is next; false: there is none.
    fn prepare(&mut self) -> bool {
        if self.pending.is_none() {
            self.pending = self.own.decoder.next();
        }
        self.pending.is_some()
    }

    /// As [`Decoder::barred`]; guidance mixes all logits.
    fn barred(&self) -> Option<Vec<(u32, Barred)>> {
        match self.branches() {
            1 => self.own.decoder.barred(),
            _ => None,
        }
    }

    /// Takes the rows of the pass that was run: those with the prompt, then those without.
    fn take(&mut self, mut rows: Vec<Row>) -> Result<()> {
        if self.branches() == 2 {
            let strength = self.own.guidance + 1.0;
            let without = rows.split_off(rows.len() / 2);
            for pair in rows.iter_mut().zip(without) {
                let (Row::Logits(row), Row::Logits(without)) = pair else {
                    continue; // `barred` asked for all logits
                };
                for (logit, without) in row.iter_mut().zip(without) {
                    *logit = without + strength * (*logit - without);
                }
            }
        }
        self.pending = None;
        self.forwards += 1;
        self.own.decoder.take(rows)
    }

    fn finish(self) -> Generation {
        let ids = self.ids();
        let ids = ids[..self.own.length.min(ids.len())].to_vec();
        let prompt = self.own.prompt;
        let ends = &self.own.plan.ends;
        let end = ids[prompt..].iter().position(|id| ends.contains(id));
        Generation {
            prompt,
            forwards: self.forwards,
            answer: end.unwrap_or(ids.len() - prompt),
            ids,
        }
    }
}

/// Passes that share one forward pass of the model.
#[derive(Default)]
struct Packed<'s> {
    tokens: Vec<Vec<u32>>,
    /// Position of the first token, and empty positions before the sequence.
    places: Vec<(usize, usize)>,
    /// Wanted rows: sequence, index in it.
    rows: Vec<(usize, usize)>,
    caches: Vec<Option<&'s mut KeyValueCache>>,
}

impl<'s> Packed<'s> {
    /// Adds the pass of a sequence; the number of rows that it gets.
    fn add(&mut self, sequence: &'s mut Sequence) -> usize {
        let branches = sequence.branches();
        let Some(pass) = &sequence.pending else {
            return 0;
        };
        let own = &sequence.own;
        let mut kept = sequence.caches.iter_mut();
        for branch in 0..branches {
            let mut ids = own.decoder.ids()[pass.start..pass.end].to_vec();
            if branch == 1 {
                let hidden = own.prompt.saturating_sub(pass.start).min(ids.len());
                ids[..hidden].fill(own.plan.mask);
            }
            let index = self.tokens.len();
            let wanted = pass.wanted.iter();
            self.rows
                .extend(wanted.map(|position| (index, position - pass.start)));
            self.tokens.push(ids);
            self.places.push((pass.start, own.pad));
            self.caches.push(kept.next());
        }
        branches * pass.wanted.len()
    }

    /// The wanted rows; with `barred`, their largest logits may be enough.
    fn run(mut self, model: &LanguageModel, barred: Option<&[(u32, Barred)]>) -> Result<Vec<Row>> {
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
        if hidden.dim(0)? == 0 {
            return Ok(Vec::new());
        }
        rows(&model.logits(&hidden)?, barred)
    }
}

/// The passes of `sequences`, which have one each, as one.
fn forward(model: &LanguageModel, sequences: &mut [&mut Sequence]) -> Result<()> {
    // Sequences of one pass that pass over the same tokens, as those of one request do.
    let mut barred = sequences.iter().map(|sequence| sequence.barred());
    let first = barred.next().flatten();
    let same = first.filter(|first| barred.all(|other| other.as_ref() == Some(first)));
    let mut packed = Packed::default();
    let counts: Vec<usize> = sequences
        .iter_mut()
        .map(|sequence| packed.add(sequence))
        .collect();
    let mut rows = packed.run(model, same.as_deref())?.into_iter();
    for (sequence, count) in sequences.iter_mut().zip(counts) {
        sequence.take(rows.by_ref().take(count).collect())?;
    }
    Ok(())
}

/// Parameters up to which a model's weights are read from the caches.
pub(super) const CACHED_PARAMETERS: u64 = 8 << 20;

/// Whether each thread takes sequences of its own, and never waits for the others: it pays where the
/// weights fit a core's cache. Larger weights come from memory, once for all sequences.
fn apart(model: &LanguageModel) -> bool {
    model.config().parameters() <= CACHED_PARAMETERS
}

/// Decodes sequences, which may come and go between passes.
pub(super) struct Session<'a> {
    model: &'a LanguageModel,
    /// In the order in which they came, each with its number.
    sequences: Vec<(u64, Sequence)>,
    next: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(model: &'a LanguageModel) -> Self {
        Self {
            model,
            sequences: Vec::new(),
            next: 0,
        }
    }

    /// Takes a sequence in; its number, which counts from 0.
    pub(super) fn admit(&mut self, newcomer: Newcomer) -> Result<u64> {
        let number = self.next;
        self.sequences
            .push((number, Sequence::new(newcomer, self.model)?));
        self.next += 1;
        Ok(number)
    }

    /// One pass for every sequence that needs one, all at once; the numbers of those. None: all are done.
    /// After an error the same passes are still to be run.
    pub(super) fn step(&mut self, control: &Control) -> Result<Vec<u64>> {
        let model = self.model;
        let running = self.sequences.iter_mut();
        let running = running.filter_map(|(number, sequence)| {
            let has_pass = sequence.prepare();
            has_pass.then_some((*number, sequence))
        });
        let (numbers, mut running): (Vec<u64>, Vec<&mut Sequence>) = running.unzip();
        if running.is_empty() {
            return Ok(numbers);
        }
        on_threads(model, control, |tokens| {
            if !apart(model) {
                return tokens.run(|| forward(model, &mut running));
            }
            running.par_iter_mut().with_max_len(1).try_for_each(|own| {
                let own = std::slice::from_mut(own);
                tokens.clone().run(|| forward(model, own))
            })
        })?;
        Ok(numbers)
    }

    /// Runs until every sequence is done. `show` sees (number, canvas) after every pass.
    pub(super) fn run(&mut self, control: &Control, show: Show<'_>) -> Result<()> {
        let model = self.model;
        if !apart(model) {
            loop {
                let moved = self.step(control)?;
                if moved.is_empty() {
                    return Ok(());
                }
                for number in moved {
                    if let Some(ids) = self.ids(number) {
                        show(number as usize, ids);
                    }
                }
            }
        }
        let show = Mutex::new(show);
        let sequences = &mut self.sequences;
        on_threads(model, control, |tokens| {
            let alone = |(number, sequence): &mut (u64, Sequence)| -> Result<()> {
                while sequence.prepare() {
                    forward(model, &mut [&mut *sequence])?;
                    let mut show = show.lock().unwrap_or_else(PoisonError::into_inner);
                    show(*number as usize, sequence.ids());
                }
                Ok(())
            };
            sequences
                .par_iter_mut()
                .with_max_len(1)
                .try_for_each(|sequence| tokens.clone().run(|| alone(sequence)))
        })
    }

    fn at(&self, number: u64) -> Option<usize> {
        self.sequences.iter().position(|(own, _)| *own == number)
    }

    /// The canvas of a sequence, masks included.
    pub(super) fn ids(&self, number: u64) -> Option<&[u32]> {
        Some(self.sequences[self.at(number)?].1.ids())
    }

    /// Whether a sequence needs no further pass.
    pub(super) fn is_done(&mut self, number: u64) -> bool {
        let at = self.at(number);
        at.is_none_or(|at| !self.sequences[at].1.prepare())
    }

    /// Lets a sequence go; what became of it, canvas cut to its length.
    pub(super) fn remove(&mut self, number: u64) -> Option<Generation> {
        let at = self.at(number)?;
        Some(self.sequences.remove(at).1.finish())
    }

    /// What became of every sequence.
    pub(super) fn finish(self) -> Vec<Generation> {
        let sequences = self.sequences.into_iter();
        sequences.map(|(_, sequence)| sequence.finish()).collect()
    }
}

/// Runs `work`, which is given what this thread carries, in the pool: from outside every parallel loop
/// would be a message to it and back. Not where others may want to compute in between, as nobody could be
/// let go first there; small models are done before it matters.
fn on_threads<R: Send>(
    model: &LanguageModel,
    control: &Control,
    work: impl FnOnce(Tokens) -> R + Send,
) -> R {
    let tokens = Tokens::of_this_thread();
    if control.takes_turns() && !apart(model) {
        return work(tokens);
    }
    rayon::scope(|_| work(tokens))
}
