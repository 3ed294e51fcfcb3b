//! Which candidates of a step are decided.

use super::proposal::{Proposal, Proposer};
use super::row::Row;
use super::selection::Selection;

/// A masked position with its proposal.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) position: usize,
    pub(super) proposal: Proposal,
    /// The row that the proposal came from, for a second look.
    pub(super) row: Row,
}

/// How far a confidence from f32 exponentials may be off.
const ERROR: f64 = 1e-6;

/// Candidates in the order of their confidence.
pub(super) struct Decision<'a> {
    sorted: Vec<Candidate>,
    exact: Option<&'a Proposer>,
}

impl<'a> Decision<'a> {
    /// `exact` looks again, in f64, where a decision is close; none: confidences are exact, or no
    /// probabilities.
    pub(super) fn new(candidates: Vec<Candidate>, exact: Option<&'a Proposer>) -> Self {
        let mut decision = Self {
            sorted: candidates,
            exact,
        };
        decision.sort();
        decision
    }

    /// Most confident first; the leftmost of equals.
    fn sort(&mut self) {
        self.sorted.sort_by(|a, b| {
            let order = b.proposal.confidence.total_cmp(&a.proposal.confidence);
            order.then(a.position.cmp(&b.position))
        });
    }

    /// The candidates that `rule` decides.
    pub(super) fn take(mut self, rule: Selection, quota: usize) -> Vec<Candidate> {
        let confidences = |sorted: &[Candidate]| -> Vec<f64> {
            sorted.iter().map(|c| c.proposal.confidence).collect()
        };
        if let Some(proposer) = self.exact
            && rule.is_sensitive(&confidences(&self.sorted), quota, ERROR)
        {
            for candidate in &mut self.sorted {
                candidate.proposal.confidence =
                    proposer.exact_row(&candidate.row, candidate.proposal.token);
            }
            self.sort();
        }
        let count = rule.count(&confidences(&self.sorted), quota);
        self.sorted.truncate(count);
        self.sorted
    }
}
