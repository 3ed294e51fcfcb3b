//! LLaDA's sampler with Fast-dLLM's caches and parallel rules (arXiv 2505.22618, algorithm 1).
//!
//! A block is decoded by steps until it has no mask. With a cache, its first step computes the
//! whole canvas and is a decoding step too; later ones compute the block and what follows it
//! (prefix), or the block alone (dual), and overwrite just those keys and values.
//!
//! For models whose row i − 1 predicts token i, the position before the block is computed with it:
//! one token more a step, and the block's first token is predicted like the others.

use std::sync::Arc;

use brisk_nn::ops::Barred;

use super::algorithm::{Algorithm, CacheMode};
use super::decide::{Candidate, Decision};
use super::decoding::DecodingPlan;
use super::proposal::{Confidence, Proposer};
use super::row::Row;
use super::selection::quota;
use super::session::{Decoder, Pass};
use crate::error::Result;

pub(super) struct BlockDecoder {
    ids: Vec<u32>,
    plan: Arc<DecodingPlan>,
    proposer: Proposer,
    cache: CacheMode,
    shifted: bool,
    early_stop: bool,
    prompt: usize,
    /// Blocks still to decode, the current one first: start, end.
    blocks: std::collections::VecDeque<(usize, usize)>,
    /// Masks of the current block when it began, and steps for them.
    quota: (usize, usize),
    step: usize,
    /// Steps in all, to address random numbers.
    total: usize,
    /// Candidates of the pass that is running.
    candidates: Vec<usize>,
}

impl BlockDecoder {
    pub(super) fn new(
        prompt: &[u32],
        length: usize,
        plan: Arc<DecodingPlan>,
        proposer: Proposer,
        cache: CacheMode,
        shifted: bool,
        early_stop: bool,
    ) -> Self {
        let mut ids = prompt.to_vec();
        ids.resize(prompt.len() + length, plan.mask);
        let mut blocks = std::collections::VecDeque::new();
        // Blanks in the prompt are a block of their own, before the answer.
        if prompt.contains(&plan.mask) {
            blocks.push_back((0, prompt.len()));
        }
        for index in 0..plan.blocks {
            let start = prompt.len() + index * plan.block_length;
            blocks.push_back((start, start + plan.block_length));
        }
        let mut decoder = Self {
            ids,
            plan,
            proposer,
            cache,
            shifted,
            early_stop,
            prompt: prompt.len(),
            blocks,
            quota: (0, 1),
            step: 0,
            total: 0,
            candidates: Vec::new(),
        };
        decoder.begin();
        decoder
    }

    fn masks(&self, start: usize, end: usize) -> Vec<usize> {
        (start..end)
            .filter(|&position| self.ids[position] == self.plan.mask)
            .collect()
    }

    /// Settles the quota of the block in front.
    fn begin(&mut self) {
        let Some(&(start, end)) = self.blocks.front() else {
            return;
        };
        let masks = self.masks(start, end).len();
        let steps = if start < self.prompt {
            // Blanks go at the pace of the answer, or one a step where there is none.
            let pace =
                self.plan.steps as f64 / (self.plan.blocks * self.plan.block_length).max(1) as f64;
            let paced = (masks as f64 * pace.min(1.0)).ceil() as usize;
            if self.plan.blocks == 0 {
                self.plan.steps.min(masks)
            } else {
                paced
            }
        } else {
            self.plan.steps_per_block()
        };
        self.quota = (masks, steps.max(1));
        self.step = 0;
    }

    /// Moves on from blocks that are done.
    fn advance(&mut self) {
        while let Some(&(start, end)) = self.blocks.front() {
            if !self.masks(start, end).is_empty() {
                return;
            }
            self.blocks.pop_front();
            let answer = &self.ids[start.max(self.prompt)..end.max(self.prompt)];
            let ended = answer
                .iter()
                .find(|id| self.plan.ends.contains(id))
                .copied();
            if let Some(end_token) = ended
                && self.early_stop
            {
                let fill = self.plan.ends.first().copied().unwrap_or(end_token);
                self.ids[end..].fill(fill);
                self.blocks.clear();
            }
            self.begin();
        }
    }

    /// The row that predicts a position.
    fn row(&self, position: usize) -> usize {
        if self.shifted {
            position.saturating_sub(1)
        } else {
            position
        }
    }
}

impl Decoder for BlockDecoder {
    fn next(&mut self) -> Option<Pass> {
        self.advance();
        let &(start, end) = self.blocks.front()?;
        let whole = self.ids.len();
        self.candidates = self.masks(start, end);
        let first = start.saturating_sub(usize::from(self.shifted));
        let (from, to) = match self.cache {
            CacheMode::None => (0, whole),
            _ if self.step == 0 => (0, whole),
            CacheMode::Prefix => (first, whole),
            CacheMode::Dual => (first, end),
        };
        let rows = self.candidates.iter().map(|&position| self.row(position));
        let mut wanted: Vec<usize> = rows.collect();
        wanted.dedup(); // row 0 of a shifted model predicts two tokens
        Some(Pass {
            start: from,
            end: to,
            wanted,
        })
    }

    fn barred(&self) -> Option<Vec<(u32, Barred)>> {
        self.proposer.barred(Confidence::Probability)
    }

    fn take(&mut self, mut rows: Vec<Row>) -> Result<()> {
        let positions = std::mem::take(&mut self.candidates);
        if self.shifted
            && positions.starts_with(&[0, 1])
            && let Some(first) = rows.first().cloned()
        {
            rows.insert(1, first);
        }
        let rows = positions.into_iter().zip(rows);
        let candidates = rows.map(|(position, mut row)| {
            let kind = Confidence::Probability;
            let mut proposal = self
                .proposer
                .propose_row(&mut row, kind, self.total, position);
            if self.plan.algorithm == Algorithm::Random {
                proposal.confidence = self.proposer.random_confidence(self.total, position);
            }
            Candidate {
                position,
                proposal,
                row,
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let (masks, steps) = self.quota;
        let quota = quota(masks, steps, self.step);
        let refine = self.plan.algorithm != Algorithm::Random;
        let decision = Decision::new(candidates, refine.then_some(&self.proposer));
        for candidate in decision.take(self.plan.selection, quota) {
            self.ids[candidate.position] = candidate.proposal.token;
        }
        self.step += 1;
        self.total += 1;
        Ok(())
    }

    fn ids(&self) -> &[u32] {
        &self.ids
    }
}
