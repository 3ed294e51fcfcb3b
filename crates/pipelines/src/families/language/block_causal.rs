//! Decoding with block-causal models, whose caches are exact: SDAR, LLaDA2, BD3-LM and
//! Fast-dLLM v2.
//!
//! The prompt's whole blocks go through the model once. Every further block, the prompt's rest
//! included, is denoised in place; when it is full, one more pass leaves its clean keys and values
//! in the cache. In Fast-dLLM v2 that pass also gives the next block's first token, and a block is
//! denoised in sub-blocks from left to right.

use std::sync::Arc;

use brisk_nn::ops::Barred;

use super::algorithm::{Algorithm, CacheMode};
use super::decide::{Candidate, Decision};
use super::decoding::DecodingPlan;
use super::proposal::{Confidence, Proposer};
use super::row::Row;
use super::selection::{Selection, quota};
use super::session::{Decoder, Pass};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The whole blocks of the prompt.
    Prefill,
    /// Steps of the current block.
    Denoise,
    /// The pass over the full block.
    Commit,
    Done,
}

/// Settings of a [`BlockCausalDecoder`].
pub(super) struct BlockCausalOptions {
    pub(super) cache: CacheMode,
    pub(super) early_stop: bool,
    pub(super) entropy_bound: f64,
    /// Sub-blocks of a shifted model.
    pub(super) sub_block: Option<usize>,
    /// Empty positions before the sequence.
    pub(super) pad: usize,
}

pub(super) struct BlockCausalDecoder {
    ids: Vec<u32>,
    plan: Arc<DecodingPlan>,
    proposer: Proposer,
    options: BlockCausalOptions,
    prompt: usize,
    phase: Phase,
    /// The current block.
    start: usize,
    end: usize,
    step: usize,
    total: usize,
    /// Positions whose proposals the running pass brings.
    positions: Vec<usize>,
    /// Whether the block's keys and values have been computed once (dual cache).
    block_cached: bool,
}

impl BlockCausalDecoder {
    pub(super) fn new(
        prompt: &[u32],
        length: usize,
        plan: Arc<DecodingPlan>,
        proposer: Proposer,
        options: BlockCausalOptions,
    ) -> Self {
        let block = plan.block_length;
        let pad = options.pad;
        let total = (prompt.len() + length + pad).next_multiple_of(block) - pad;
        let mut ids = prompt.to_vec();
        ids.resize(total, plan.mask);
        // Whole blocks of the prompt, the first of which may be cut short by the padding.
        let known = ((prompt.len() + pad) / block * block).saturating_sub(pad);
        Self {
            ids,
            plan,
            proposer,
            prompt: prompt.len(),
            phase: if known > 0 && has_memory(&options) {
                Phase::Prefill
            } else {
                Phase::Denoise
            },
            start: known,
            end: (known + pad) / block * block + block - pad,
            step: 0,
            total: 0,
            positions: Vec::new(),
            block_cached: false,
            options,
        }
    }

    fn shifted(&self) -> bool {
        self.options.sub_block.is_some()
    }

    /// The part of the block that is being denoised: start, end.
    fn window(&self) -> (usize, usize) {
        let whole = (self.start, self.end);
        let Some(sub) = self.options.sub_block else {
            return whole;
        };
        let first = (self.start..self.end).find(|&p| self.ids[p] == self.plan.mask);
        match first {
            Some(position) => {
                let start = position - (position - self.start) % sub;
                (start, (start + sub).min(self.end))
            }
            None => whole,
        }
    }

    fn full(&self) -> bool {
        !self.ids[self.start..self.end].contains(&self.plan.mask)
    }

    /// Keys and values from the sequence's start: without a cache everything is computed again.
    fn from(&self, start: usize) -> usize {
        if self.options.cache == CacheMode::None {
            0
        } else {
            start
        }
    }

    /// After a full block: the next one, or the end.
    fn leave(&mut self) {
        let answer = &self.ids[self.start.max(self.prompt)..self.end];
        let ends = &self.plan.ends;
        let ended = answer.iter().any(|id| ends.contains(id));
        if ended && self.options.early_stop {
            let fill = ends[0];
            self.ids[self.end..].fill(fill);
            self.phase = Phase::Done;
        } else if self.end >= self.ids.len() {
            self.phase = Phase::Done;
        } else if has_memory(&self.options) {
            self.phase = Phase::Commit;
        } else {
            self.enter_next();
        }
    }

    fn enter_next(&mut self) {
        (self.start, self.end) = (self.end, self.end + self.plan.block_length);
        self.step = 0;
    }

    fn confidence(&self) -> Confidence {
        if self.plan.algorithm == Algorithm::EntropyBounded {
            Confidence::Entropy
        } else {
            Confidence::Probability
        }
    }

    fn choose(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let decision = |candidates| Decision::new(candidates, Some(&self.proposer));
        let quota = quota(
            self.plan.block_length,
            self.plan.steps_per_block(),
            self.step,
        );
        let all = candidates.len();
        match (self.plan.algorithm, self.plan.selection) {
            (Algorithm::LowConfidenceDynamic, Selection::Threshold(threshold)) => {
                // These references compare with >, the first version of Fast-dLLM with >=.
                let least = if self.shifted() { 1 } else { quota.min(all) };
                let above = Selection::Threshold(threshold.next_up());
                let sure = candidates
                    .iter()
                    .filter(|c| c.proposal.confidence > threshold)
                    .count();
                if sure >= least.max(1) {
                    decision(candidates).take(above, 0)
                } else {
                    decision(candidates).take(Selection::Quota, least)
                }
            }
            (Algorithm::Sequential, _) => candidates.into_iter().take(quota).collect(),
            (Algorithm::EntropyBounded, _) => {
                let mut sum = 0.0;
                let mut sorted = candidates;
                sorted.sort_by(|a, b| b.proposal.confidence.total_cmp(&a.proposal.confidence));
                let kept = sorted
                    .iter()
                    .take_while(|candidate| {
                        sum -= candidate.proposal.confidence;
                        sum <= self.options.entropy_bound
                    })
                    .count();
                sorted.truncate(kept.max(1));
                sorted
            }
            _ => decision(candidates).take(Selection::Quota, quota),
        }
    }
}

/// Whether passes over known tokens are good for anything: a cache, or a next token.
fn has_memory(options: &BlockCausalOptions) -> bool {
    options.cache != CacheMode::None || options.sub_block.is_some()
}

impl Decoder for BlockCausalDecoder {
    fn next(&mut self) -> Option<Pass> {
        if self.phase == Phase::Denoise && self.full() {
            self.leave();
        }
        match self.phase {
            Phase::Done => None,
            Phase::Prefill | Phase::Commit => {
                let (start, end) = if self.phase == Phase::Prefill {
                    (0, self.start)
                } else {
                    (self.from(self.start), self.end)
                };
                let wanted = if self.shifted() {
                    vec![end - 1]
                } else {
                    Vec::new()
                };
                Some(Pass { start, end, wanted })
            }
            Phase::Denoise => {
                let (from, to) = self.window();
                self.positions = (from..to)
                    .filter(|&position| self.ids[position] == self.plan.mask)
                    .collect();
                let inside = self.options.cache == CacheMode::Dual
                    && self.block_cached
                    && self.ids[from] != self.plan.mask;
                let (start, end) = if inside {
                    (from, to)
                } else {
                    (self.from(self.start), self.end)
                };
                self.block_cached = true;
                // The first token of what is computed is known in shifted models, so the row
                // before it is never asked for.
                let back = usize::from(self.shifted());
                let wanted = self.positions.iter().map(|&position| position - back);
                Some(Pass {
                    start,
                    end,
                    wanted: wanted.collect(),
                })
            }
        }
    }

    fn barred(&self) -> Option<Vec<(u32, Barred)>> {
        self.proposer.barred(self.confidence())
    }

    fn take(&mut self, rows: Vec<Row>) -> Result<()> {
        let total = self.total;
        self.total += 1;
        if self.phase != Phase::Denoise {
            if self.phase == Phase::Commit {
                self.enter_next();
            }
            self.phase = Phase::Denoise;
            self.block_cached = false;
            if let Some(mut row) = rows.into_iter().next()
                && self.ids.get(self.start) == Some(&self.plan.mask)
            {
                let kind = Confidence::Probability;
                let proposal = self.proposer.propose_row(&mut row, kind, total, self.start);
                self.ids[self.start] = proposal.token;
            }
            return Ok(());
        }
        let positions = std::mem::take(&mut self.positions);
        let kind = self.confidence();
        let rows = positions.into_iter().zip(rows);
        let candidates = rows.map(|(position, mut row)| Candidate {
            position,
            proposal: self.proposer.propose_row(&mut row, kind, total, position),
            row,
        });
        for candidate in self.choose(candidates.collect()) {
            self.ids[candidate.position] = candidate.proposal.token;
        }
        self.step += 1;
        Ok(())
    }

    fn ids(&self) -> &[u32] {
        &self.ids
    }
}
