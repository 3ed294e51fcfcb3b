//! What a pass gives for a position that is to be decided: all its logits, or, where they lie on a card and no more is
//! needed, what was found there.

use brisk_nn::ops::{Barred, LargestLogit, all_finite, largest_logits};
use brisk_nn::{Location, Tensor};

use super::proposal::{Confidence, Proposal, Proposer, Sampling};
use crate::error::{Error, Result};

/// A row of the head.
#[derive(Debug, Clone)]
pub(super) enum Row {
    /// One logit a token.
    Logits(Vec<f32>),
    /// The largest, and what softmax needs to know.
    Largest(LargestLogit),
}

/// Logits of a run as rows; with `barred`, of which the largest is enough, logits of a card stay there.
pub(super) fn rows(logits: &Tensor, barred: Option<&[(u32, Barred)]>) -> Result<Vec<Row>> {
    let not_finite = || {
        Error::Nn(brisk_nn::Error::NonFinite {
            stage: "language model".into(),
            layer: "head".into(),
        })
    };
    if let Some(barred) = barred
        && let Some(found) = largest_logits(logits, barred)?
    {
        return match found.iter().all(|row| row.sum.is_finite()) {
            true => Ok(found.into_iter().map(Row::Largest).collect()),
            false => Err(not_finite()),
        };
    }
    let logits = logits.to(&Location::HOST)?;
    if !all_finite(&logits)? {
        return Err(not_finite());
    }
    let rows = logits.to_vec2::<f32>()?.into_iter();
    Ok(rows.map(Row::Logits).collect())
}

impl Proposer {
    /// The tokens that a search for the largest logit passes over, where that is all that a proposal with this
    /// confidence takes.
    pub(super) fn barred(&self, kind: Confidence) -> Option<Vec<(u32, Barred)>> {
        let filtered = self.top_k.is_some() || self.top_p.is_some_and(|p| p < 1.0);
        if kind != Confidence::Probability || self.temperature > 0.0 || filtered {
            return None;
        }
        let mut barred = vec![(self.mask, Barred::Found)];
        barred.extend(self.removed.iter().map(|token| (*token, Barred::Both)));
        if self.sampling == Sampling::Gumbel {
            barred.extend(self.doubted.iter().map(|token| (*token, Barred::Share)));
        }
        Some(barred)
    }

    /// As [`Self::propose`], of either kind of row.
    pub(super) fn propose_row(
        &self,
        row: &mut Row,
        kind: Confidence,
        step: usize,
        position: usize,
    ) -> Proposal {
        match row {
            Row::Logits(logits) => self.propose(logits, kind, step, position),
            Row::Largest(found) => Proposal {
                token: found.token,
                confidence: self.share(found),
            },
        }
    }

    /// As [`Self::exact`], of either kind of row.
    pub(super) fn exact_row(&self, row: &Row, token: u32) -> f64 {
        match row {
            Row::Logits(logits) => self.exact(logits, token),
            // Its exponentials are f64.
            Row::Largest(found) => self.share(found),
        }
    }

    fn share(&self, found: &LargestLogit) -> f64 {
        let doubted = self.sampling == Sampling::Gumbel && self.doubted.contains(&found.token);
        match doubted {
            true => 0.0,
            false => (found.logit - found.largest).exp() / found.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// What is found in a row gives the proposal of the row.
    #[test]
    fn what_was_found_gives_the_proposal_of_all_logits() {
        let logits = [0.3f32, 2.0, 1.5, -0.7, 1.9];
        let found = |barred: &[(u32, Barred)]| {
            let may = |token: usize, not: Barred| {
                let bars = |(other, kind): &(u32, Barred)| {
                    *other as usize == token && (*kind == not || *kind == Barred::Both)
                };
                !barred.iter().any(bars)
            };
            let most = |not: Barred| {
                let tokens = (0..logits.len()).filter(|token| may(*token, not));
                tokens
                    .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
                    .unwrap()
            };
            let (token, top) = (most(Barred::Found), logits[most(Barred::Share)]);
            let shares = (0..logits.len()).filter(|token| may(*token, Barred::Share));
            LargestLogit {
                token: token as u32,
                logit: logits[token].into(),
                largest: top.into(),
                sum: shares.map(|t| f64::from(logits[t] - top).exp()).sum(),
            }
        };
        for (sampling, mask, removed, doubted) in [
            (Sampling::Gumbel, 1, vec![], vec![]),
            (Sampling::Gumbel, 3, vec![1], vec![2]),
            (Sampling::Gumbel, 3, vec![], vec![1, 0]),
            (Sampling::Filtered, 1, vec![4], vec![2]),
        ] {
            let proposer = Proposer {
                sampling,
                temperature: 0.0,
                top_p: None,
                top_k: None,
                random: Random::new(1),
                mask,
                removed,
                doubted,
            };
            let kind = Confidence::Probability;
            let wanted = proposer.propose(&mut logits.clone(), kind, 0, 0);
            let mut row = Row::Largest(found(&proposer.barred(kind).unwrap()));
            let proposal = proposer.propose_row(&mut row, kind, 0, 0);
            assert_eq!(proposal.token, wanted.token);
            assert!((proposal.confidence - wanted.confidence).abs() < 1e-6);
            assert_eq!(proposer.exact_row(&row, wanted.token), proposal.confidence);
            assert!(proposer.barred(Confidence::Margin).is_none());
            let warm = Proposer {
                temperature: 0.5,
                ..proposer
            };
            assert!(warm.barred(kind).is_none());
        }
    }
}
