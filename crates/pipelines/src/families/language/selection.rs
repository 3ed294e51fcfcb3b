//! How many of the masked tokens are decided in one step, most confident first.
//!
//! Fast-dLLM (arXiv 2505.22618), Theorem 1: if every one of `n` tokens has a marginal above `1 − ε`
//! and `(n + 1)·ε ≤ 1`, the most likely tokens taken in parallel are the most likely joint choice.
//! The factor rule asks just that of the least confident token. The Fréchet rule
//! (arXiv 2606.02955) asks less where the others are surer: `Σ(1 − c_i) + (1 − c_n) < 1`.

/// Rule of one decoding step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selection {
    /// A number of tokens fixed by the number of steps.
    Quota,
    /// The most confident token, and all whose confidence is at least this.
    Threshold(f64),
    /// The factor rule as Fast-dLLM's code has it: it also takes the last candidate along when all
    /// others passed.
    Factor(f64),
    /// The largest `n` with `(n + 1)·(1 − c_n) < f`.
    FactorStrict(f64),
    /// The largest `n` with `Σ(1 − c_i) + (1 − c_n) < f`.
    Frechet(f64),
}

impl Selection {
    /// Number of candidates to decide; `sorted` are their confidences, highest first. At least 1
    /// and at most all, except that a quota may be 0.
    pub fn count(&self, sorted: &[f64], quota: usize) -> usize {
        let all = sorted.len();
        if all == 0 {
            return 0;
        }
        match *self {
            Self::Quota => quota.min(all),
            Self::Threshold(least) => sorted.iter().take_while(|c| **c >= least).count().max(1),
            Self::Factor(factor) => {
                let fails =
                    |&rank: &usize| rank > 0 && sorted[rank] < 1.0 - factor / (rank as f64 + 2.0);
                match (0..all).find(fails) {
                    Some(rank) if rank + 1 < all => rank,
                    _ => all,
                }
            }
            Self::FactorStrict(factor) => sorted
                .iter()
                .enumerate()
                .take_while(|(rank, c)| (*rank as f64 + 2.0) * (1.0 - **c) < factor)
                .count()
                .max(1),
            Self::Frechet(factor) => {
                let mut sum = 0.0;
                sorted
                    .iter()
                    .take_while(|c| {
                        let doubt = 1.0 - **c;
                        sum += doubt;
                        sum + doubt < factor
                    })
                    .count()
                    .max(1)
            }
        }
    }

    /// Whether confidences that are off by `error` could change the count.
    pub(super) fn is_sensitive(&self, sorted: &[f64], quota: usize, error: f64) -> bool {
        let moved = |by: f64| -> usize {
            let moved: Vec<f64> = sorted.iter().map(|c| c + by).collect();
            self.count(&moved, quota)
        };
        let count = self.count(sorted, quota);
        let at_the_border =
            (1..sorted.len()).any(|rank| rank == count && sorted[rank - 1] - sorted[rank] < error);
        at_the_border || moved(error) != count || moved(-error) != count
    }
}

/// Tokens of step `step` when `masks` tokens are spread over `steps` steps; the first steps take
/// the remainder.
pub fn quota(masks: usize, steps: usize, step: usize) -> usize {
    if step >= steps {
        return 1; // masks that are left over
    }
    masks / steps + usize::from(step < masks % steps)
}

/// Dream's time grid, as `torch.linspace(1, eps, steps + 1)` in f32.
pub fn timesteps(steps: usize, eps: f32) -> Vec<f32> {
    let step = (eps - 1.0) / steps as f32;
    (0..=steps)
        .map(|index| {
            if index < steps.div_ceil(2) {
                1.0 + step * index as f32
            } else {
                eps - step * (steps - index) as f32
            }
        })
        .collect()
}

/// Tokens that Dream decides between times `t` and `s` of `masks`, truncated as in f32.
pub fn time_quota(masks: usize, t: f32, s: f32) -> usize {
    (masks as f32 * (1.0 - s / t)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts that the reference's code gives.
    #[test]
    fn the_factor_rule_keeps_the_references_quirk() {
        let count = |c: &[f64]| Selection::Factor(1.0).count(c, 0);
        assert_eq!(count(&[0.9, 0.01]), 2);
        assert_eq!(count(&[0.3, 0.2, 0.1]), 1);
        assert_eq!(count(&[0.99, 0.98, 0.97, 0.01]), 4);
        assert_eq!(count(&[0.99, 0.1, 0.05, 0.01]), 1);
        assert_eq!(count(&[0.99, 0.99, 0.01]), 3);
        assert_eq!(count(&[0.01]), 1);
        let strict = |c: &[f64]| Selection::FactorStrict(1.0).count(c, 0);
        assert_eq!(strict(&[0.9, 0.01]), 1);
        assert_eq!(strict(&[0.99, 0.98, 0.97, 0.01]), 3);
    }

    #[test]
    fn frechet_equals_factor_for_equal_confidences_and_never_takes_fewer() {
        for (doubt, n) in [(0.11, 8), (0.21, 3), (0.051, 18)] {
            let equal = vec![1.0 - doubt; 32];
            assert_eq!(Selection::Frechet(1.0).count(&equal, 0), n);
            assert_eq!(Selection::FactorStrict(1.0).count(&equal, 0), n);
        }
        let mixed = [0.999, 0.999, 0.999, 0.6, 0.5];
        assert_eq!(Selection::FactorStrict(1.0).count(&mixed, 0), 3);
        assert_eq!(Selection::Frechet(1.0).count(&mixed, 0), 4);
    }

    #[test]
    fn quotas_fill_the_block() {
        for (masks, steps) in [(8, 8), (8, 3), (8, 1), (5, 8), (32, 7)] {
            let sum: usize = (0..steps).map(|step| quota(masks, steps, step)).sum();
            assert_eq!(sum, masks);
        }
        assert_eq!(
            (0..3).map(|s| quota(8, 3, s)).collect::<Vec<_>>(),
            [3, 3, 2]
        );
    }

    /// The truncation that the reference shows: with as many steps as tokens the first step decides
    /// nothing and the last two.
    #[test]
    fn dreams_truncation_is_reproduced() {
        let schedule = |masks: usize, steps: usize, first: usize| -> Vec<usize> {
            let times = timesteps(steps, 1e-3);
            let mut left = masks;
            (first..steps)
                .map(|step| {
                    let taken = if step + 1 < steps {
                        time_quota(left, times[step], times[step + 1])
                    } else {
                        left
                    };
                    left -= taken;
                    taken
                })
                .collect()
        };
        for length in [32, 256, 512] {
            let taken = schedule(length, length, 0);
            assert_eq!((taken[0], taken[length - 1]), (0, 2), "{length}");
            assert!(taken[1..length - 1].iter().all(|k| *k == 1), "{length}");
            let half = schedule(length, length / 2, 0);
            assert_eq!((half[0], half[length / 2 - 1]), (1, 3), "{length}");
        }
        assert_eq!(schedule(31, 8, 1), [4, 4, 4, 4, 4, 5, 6]);
        assert_eq!(schedule(31, 16, 1)[..2], [2, 2]);
    }
}
