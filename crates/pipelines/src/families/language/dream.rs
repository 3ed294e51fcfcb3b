//! Dream's samplers: the whole canvas without a cache (`generation_utils.py` of the published
//! model), and Fast-dLLM's block variant with a prefix or dual cache
//! (`generation_utils_block.py`).
//!
//! Row i − 1 predicts token i. In the block variant the pass over the whole canvas decides the
//! block's first token, whatever its confidence, and nothing else: the cached passes start at the
//! block and have no row before it.

use std::collections::VecDeque;
use std::sync::Arc;

use brisk_nn::ops::Barred;

use super::algorithm::{Algorithm, CacheMode};
use super::decide::{Candidate, Decision};
use super::decoding::DecodingPlan;
use super::proposal::Proposer;
use super::random::Use;
use super::row::Row;
use super::selection::{Selection, time_quota, timesteps};
use super::session::{Decoder, Pass};
use crate::error::Result;

/// Dream's last time.
const EPS: f32 = 1e-3;

fn masks(ids: &[u32], mask: u32, start: usize, end: usize) -> Vec<usize> {
    (start..end)
        .filter(|&position| ids[position] == mask)
        .collect()
}

fn canvas(prompt: &[u32], length: usize, mask: u32) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    ids.resize(prompt.len() + length, mask);
    ids
}

/// Proposals for `positions` from one row each.
fn propose(
    proposer: &Proposer,
    plan: &DecodingPlan,
    step: usize,
    positions: &[usize],
    rows: Vec<Row>,
) -> Vec<Candidate> {
    let rows = positions.iter().zip(rows);
    rows.map(|(&position, mut row)| Candidate {
        position,
        proposal: proposer.propose_row(&mut row, plan.confidence(), step, position),
        row,
    })
    .collect()
}

/// Up to `count` candidates: the most confident ones, or drawn by their confidence.
fn ordered(
    candidates: Vec<Candidate>,
    count: usize,
    proposer: &Proposer,
    temperature: f64,
    step: usize,
) -> Vec<Candidate> {
    let mut candidates = candidates;
    if temperature > 0.0 {
        // Drawing without replacement from softmax(c/T) is taking the highest c/T + Gumbel noise.
        for candidate in &mut candidates {
            let u = proposer
                .random
                .uniform(Use::Order, step, candidate.position, 0);
            candidate.proposal.confidence =
                candidate.proposal.confidence / temperature - (-u.ln()).ln();
        }
    }
    Decision::new(candidates, None).take(Selection::Quota, count)
}

/// The whole canvas, without a cache.
pub(super) struct DreamDecoder {
    ids: Vec<u32>,
    plan: Arc<DecodingPlan>,
    proposer: Proposer,
    order_temperature: f64,
    times: Vec<f32>,
    step: usize,
    steps: usize,
    /// Tokens a step under a threshold, and those postponed.
    base: usize,
    postponed: usize,
    positions: Vec<usize>,
}

impl DreamDecoder {
    pub(super) fn new(
        prompt: &[u32],
        length: usize,
        plan: Arc<DecodingPlan>,
        proposer: Proposer,
        order_temperature: f64,
    ) -> Self {
        Self {
            ids: canvas(prompt, length, plan.mask),
            proposer,
            order_temperature,
            times: timesteps(plan.steps, EPS),
            step: 0,
            steps: plan.steps,
            base: length / plan.steps,
            plan,
            postponed: 0,
            positions: Vec::new(),
        }
    }

    /// Fast-dLLM's threshold without blocks: each step has a budget, what is not sure enough is
    /// postponed, and steps are added until nothing is left.
    fn threshold(&mut self, candidates: Vec<Candidate>, threshold: f64) -> Vec<Candidate> {
        let budget = self.base + std::mem::take(&mut self.postponed);
        let best = Decision::new(candidates, Some(&self.proposer)).take(Selection::Quota, budget);
        let budget = best.len();
        let kept =
            Decision::new(best, Some(&self.proposer)).take(Selection::Threshold(threshold), 0);
        self.postponed = budget - kept.len();
        if self.postponed > 0 && self.step + 1 == self.steps {
            self.base = 0;
            self.steps += 1;
        }
        kept
    }
}

impl Decoder for DreamDecoder {
    fn next(&mut self) -> Option<Pass> {
        if self.step >= self.steps {
            return None;
        }
        self.positions = masks(&self.ids, self.plan.mask, 0, self.ids.len());
        let rows = self.positions.iter().map(|p| p.saturating_sub(1));
        Some(Pass {
            start: 0,
            end: self.ids.len(),
            wanted: rows.collect(),
        })
    }

    fn barred(&self) -> Option<Vec<(u32, Barred)>> {
        self.proposer.barred(self.plan.confidence())
    }

    fn take(&mut self, rows: Vec<Row>) -> Result<()> {
        let positions = std::mem::take(&mut self.positions);
        let candidates = propose(&self.proposer, &self.plan, self.step, &positions, rows);
        let last = self.step + 1 == self.steps;
        let chosen = match (self.plan.algorithm, self.plan.selection) {
            (Algorithm::ConfidenceThreshold, Selection::Threshold(threshold)) => {
                self.threshold(candidates, threshold)
            }
            (algorithm, _) => {
                let (t, s) = (self.times[self.step], self.times[self.step + 1]);
                if algorithm == Algorithm::Origin {
                    let share = if last { 1.0 } else { f64::from(1.0 - s / t) };
                    let random = self.proposer.random;
                    let decided = |c: &Candidate| {
                        random.uniform(Use::Transfer, self.step, c.position, 0) < share
                    };
                    candidates.into_iter().filter(decided).collect()
                } else {
                    let all = candidates.len();
                    let count = if last { all } else { time_quota(all, t, s) };
                    let temperature = self.order_temperature;
                    ordered(candidates, count, &self.proposer, temperature, self.step)
                }
            }
        };
        for candidate in chosen {
            self.ids[candidate.position] = candidate.proposal.token;
        }
        self.step += 1;
        Ok(())
    }

    fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// Block by block with a cache.
pub(super) struct DreamBlockDecoder {
    ids: Vec<u32>,
    plan: Arc<DecodingPlan>,
    proposer: Proposer,
    order_temperature: f64,
    dual: bool,
    early_stop: bool,
    times: Vec<f32>,
    blocks: VecDeque<(usize, usize)>,
    /// 0 is the pass over the whole canvas.
    step: usize,
    total: usize,
    positions: Vec<usize>,
}

impl DreamBlockDecoder {
    pub(super) fn new(
        prompt: &[u32],
        length: usize,
        plan: Arc<DecodingPlan>,
        proposer: Proposer,
        order_temperature: f64,
        cache: CacheMode,
        early_stop: bool,
    ) -> Self {
        let blocks = (0..plan.blocks).map(|index| {
            let start = prompt.len() + index * plan.block_length;
            (start, start + plan.block_length)
        });
        let blocks = blocks.collect();
        Self {
            ids: canvas(prompt, length, plan.mask),
            proposer,
            order_temperature,
            dual: cache == CacheMode::Dual,
            early_stop,
            times: timesteps(plan.steps_per_block(), EPS),
            plan,
            blocks,
            step: 0,
            total: 0,
            positions: Vec::new(),
        }
    }

    /// Leaves a block that is full. The reference looks for masks only after a cached pass, so
    /// every block has at least one.
    fn advance(&mut self) {
        while let Some(&(start, end)) = self.blocks.front() {
            let full = masks(&self.ids, self.plan.mask, start, end).is_empty();
            if !full || self.step < 2 {
                return;
            }
            self.blocks.pop_front();
            self.step = 0;
            let ends = &self.plan.ends;
            if self.early_stop && self.ids[start..end].iter().any(|id| ends.contains(id)) {
                let fill = ends[0];
                self.ids[end..].fill(fill);
                self.blocks.clear();
            }
        }
    }
}

impl Decoder for DreamBlockDecoder {
    fn next(&mut self) -> Option<Pass> {
        self.advance();
        let &(start, end) = self.blocks.front()?;
        if self.step == 0 {
            self.positions = vec![start];
            return Some(Pass {
                start: 0,
                end: self.ids.len(),
                wanted: vec![start.saturating_sub(1)],
            });
        }
        self.positions = masks(&self.ids, self.plan.mask, start, end);
        Some(Pass {
            start,
            end: if self.dual { end } else { self.ids.len() },
            wanted: self.positions.iter().map(|p| p - 1).collect(),
        })
    }

    fn barred(&self) -> Option<Vec<(u32, Barred)>> {
        self.proposer.barred(self.plan.confidence())
    }

    fn take(&mut self, rows: Vec<Row>) -> Result<()> {
        let positions = std::mem::take(&mut self.positions);
        let candidates = propose(&self.proposer, &self.plan, self.total, &positions, rows);
        let chosen = match self.plan.selection {
            _ if self.step == 0 => candidates,
            Selection::Quota => {
                let all = candidates.len();
                let steps = self.plan.steps_per_block();
                let count = if self.step + 1 < steps {
                    time_quota(all, self.times[self.step], self.times[self.step + 1])
                } else {
                    all
                };
                let temperature = self.order_temperature;
                ordered(candidates, count, &self.proposer, temperature, self.total)
            }
            rule => Decision::new(candidates, Some(&self.proposer)).take(rule, 0),
        };
        for candidate in chosen {
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
