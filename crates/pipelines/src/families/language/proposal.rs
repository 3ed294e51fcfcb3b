//! From logits to a proposed token and how sure the model is of it.

use brisk_nn::logits::{exponential_sum, maximum};

use super::random::{Random, Use};

/// What a masked position would become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// The token.
    pub token: u32,
    /// Higher is decided earlier. A probability, except with Dream's entropy rule.
    pub confidence: f64,
}

/// Which confidence a proposal gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// Probability of the proposed token.
    Probability,
    /// Difference of the two highest probabilities.
    Margin,
    /// Negative entropy.
    Entropy,
}

/// Where temperature and filters act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Gumbel noise on the logits chooses; the confidence does not know of it (LLaDA).
    Gumbel,
    /// The tempered, filtered distribution is sampled and is the confidence (Dream and others).
    Filtered,
}

/// Turns rows of logits into proposals.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    pub(super) sampling: Sampling,
    pub(super) temperature: f64,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<usize>,
    pub(super) random: Random,
    /// Never proposed.
    pub(super) mask: u32,
    /// Removed from the logits altogether.
    pub(super) removed: Vec<u32>,
    /// Proposed, but with no confidence.
    pub(super) doubted: Vec<u32>,
}

impl Proposer {
    /// The proposal of one row; `step` and `position` address its random numbers. Exponentials are
    /// f32, sums f64; [`Self::exact`] is there for close decisions.
    pub(super) fn propose(
        &self,
        logits: &mut [f32],
        kind: Confidence,
        step: usize,
        position: usize,
    ) -> Proposal {
        for &token in &self.removed {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        match self.sampling {
            Sampling::Gumbel => {
                let token = self.gumbel(logits, step, position);
                self.doubt(logits);
                Proposal {
                    token,
                    confidence: confidence(logits, token, kind),
                }
            }
            Sampling::Filtered => {
                if self.temperature > 0.0 {
                    let scale = self.temperature as f32;
                    logits.iter_mut().for_each(|logit| *logit /= scale);
                }
                self.filter(logits);
                let token = if self.temperature > 0.0 {
                    self.sample(logits, step, position)
                } else {
                    self.best(logits)
                };
                Proposal {
                    token,
                    confidence: confidence(logits, token, kind),
                }
            }
        }
    }

    /// The confidence again, every exponential in f64. `logits` as [`Self::propose`] left them.
    pub(super) fn exact(&self, logits: &[f32], token: u32) -> f64 {
        let top = maximum(logits);
        let power = |logit: f32| (f64::from(logit) - f64::from(top)).exp();
        let sum: f64 = logits.iter().map(|&logit| power(logit)).sum();
        logits.get(token as usize).map_or(0.0, |&l| power(l) / sum)
    }

    /// A confidence that orders at random.
    pub(super) fn random_confidence(&self, step: usize, position: usize) -> f64 {
        self.random.uniform(Use::Confidence, step, position, 0)
    }

    fn doubt(&self, logits: &mut [f32]) {
        for &token in &self.doubted {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The highest logit that is not the mask's; the first of equals.
    fn best(&self, logits: &[f32]) -> u32 {
        let mask = self.mask as usize;
        let (before, after) = match logits.get(mask) {
            Some(_) => (&logits[..mask], &logits[mask + 1..]),
            None => (logits, &[][..]),
        };
        let (most, later) = (maximum(before), maximum(after));
        let place = |row: &[f32], value: f32| row.iter().position(|logit| *logit == value);
        let found = match later > most {
            true => place(after, later).map(|at| at + mask + 1),
            false if most > f32::NEG_INFINITY => place(before, most),
            false => None,
        };
        found.unwrap_or(0) as u32
    }

    /// argmax of `l + T·(−ln(−ln u))`, the noise in f64.
    fn gumbel(&self, logits: &[f32], step: usize, position: usize) -> u32 {
        if self.temperature == 0.0 {
            return self.best(logits);
        }
        let noise = |token: usize| self.random.uniform(Use::Token, step, position, token);
        gumbel_choice(logits, self.temperature, self.mask, noise)
    }

    /// A draw from softmax(logits) by one uniform.
    fn sample(&self, logits: &[f32], step: usize, position: usize) -> u32 {
        let top = maximum(logits);
        let power = |(token, logit): (usize, &f32)| {
            if token as u32 == self.mask {
                0.0
            } else {
                f64::from((logit - top).exp())
            }
        };
        let sum: f64 = logits.iter().enumerate().map(power).sum();
        let mut left = sum * self.random.uniform(Use::Token, step, position, 0);
        for (token, logit) in logits.iter().enumerate() {
            left -= power((token, logit));
            if left < 0.0 {
                return token as u32;
            }
        }
        self.best(logits)
    }

    /// Nucleus first, then top-k, as Dream does; what falls out gets the lowest logit.
    fn filter(&self, logits: &mut [f32]) {
        let nucleus = self.top_p.filter(|p| *p < 1.0);
        if nucleus.is_none() && self.top_k.is_none() {
            return;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        if let Some(mass) = nucleus {
            let top = maximum(logits);
            let sum: f64 = logits.iter().map(|l| f64::from((l - top).exp())).sum();
            let mut before = 0.0;
            for (rank, &token) in order.iter().enumerate() {
                let share = f64::from((logits[token] - top).exp()) / sum;
                if rank > 0 && before > mass {
                    logits[token] = f32::MIN;
                }
                before += share;
            }
        }
        if let Some(k) = self.top_k
            && let Some(&last) = order.get(k.max(1) - 1)
        {
            let least = logits[last];
            for logit in logits.iter_mut().filter(|logit| **logit < least) {
                *logit = f32::MIN;
            }
        }
    }
}

/// argmax of `l + T·(−ln(−ln u))`. Noise lies between −3.7 and 36.8, so tokens that no noise can
/// lift to the top draw none.
pub(super) fn gumbel_choice(
    logits: &[f32],
    temperature: f64,
    mask: u32,
    noise: impl Fn(usize) -> f64,
) -> u32 {
    let least = f64::from(maximum(logits)) - 40.5 * temperature;
    let mut best = (0, f64::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        let logit = f64::from(logit);
        if logit < least || token as u32 == mask {
            continue;
        }
        let value = logit - temperature * (-noise(token).ln()).ln();
        if value > best.1 {
            best = (token as u32, value);
        }
    }
    best.0
}

fn confidence(logits: &[f32], token: u32, kind: Confidence) -> f64 {
    let top = maximum(logits);
    let power = |logit: f32| f64::from((logit - top).exp());
    let sum = exponential_sum(logits, top);
    match kind {
        Confidence::Probability => logits.get(token as usize).map_or(0.0, |&l| power(l) / sum),
        Confidence::Margin => {
            let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            for &logit in logits {
                if logit > first {
                    (first, second) = (logit, first);
                } else if logit > second {
                    second = logit;
                }
            }
            (power(first) - power(second)) / sum
        }
        Confidence::Entropy => logits
            .iter()
            .map(|&logit| {
                let p = (power(logit) / sum) as f32;
                f64::from(p * (p + 1e-10).ln())
            })
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposer(sampling: Sampling, temperature: f64) -> Proposer {
        Proposer {
            sampling,
            temperature,
            top_p: None,
            top_k: None,
            random: Random::new(1),
            mask: 99,
            removed: Vec::new(),
            doubted: Vec::new(),
        }
    }

    const LOGITS: [f32; 4] = [1.0, 2.0, 0.0, -1.0];

    #[test]
    fn greedy_confidence_is_the_softmax() {
        let p = proposer(Sampling::Gumbel, 0.0);
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        let sum: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
        assert_eq!(found.token, 1);
        assert!((found.confidence - 2f64.exp() / sum).abs() < 1e-7);
        assert!((p.exact(&LOGITS, 1) - 2f64.exp() / sum).abs() < 1e-15);
        let margin = p.propose(&mut LOGITS.clone(), Confidence::Margin, 0, 0);
        assert!((margin.confidence - (2f64.exp() - 1f64.exp()) / sum).abs() < 1e-7);
    }

    #[test]
    fn masks_are_never_proposed_and_doubted_ends_have_no_confidence() {
        let mut p = proposer(Sampling::Gumbel, 0.0);
        p.mask = 1;
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        assert_eq!(found.token, 0);
        let mut p = proposer(Sampling::Gumbel, 0.0);
        p.doubted = vec![1];
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        assert_eq!((found.token, found.confidence), (1, 0.0));
        p.removed = vec![1];
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        assert_eq!(found.token, 0);
    }

    /// Both ways of sampling draw softmax(l/T).
    #[test]
    fn sampling_follows_the_tempered_softmax() {
        let temperature = 0.7;
        let sum: f64 = LOGITS
            .iter()
            .map(|l| (f64::from(*l) / temperature).exp())
            .sum();
        for sampling in [Sampling::Gumbel, Sampling::Filtered] {
            let p = proposer(sampling, temperature);
            let mut counts = [0.0; 4];
            for position in 0..20_000 {
                let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 3, position);
                counts[found.token as usize] += 1.0 / 20_000.0;
            }
            for (token, count) in counts.into_iter().enumerate() {
                let wanted = (f64::from(LOGITS[token]) / temperature).exp() / sum;
                assert!(
                    (count - wanted).abs() < 0.012,
                    "{sampling:?} {token}: {count}"
                );
            }
        }
    }

    /// The reference takes argmax of exp(l)/(−ln u)^T; the same uniforms give the same token.
    #[test]
    fn gumbel_noise_chooses_as_the_reference_with_the_same_uniforms() {
        let random = Random::new(5);
        for case in 0..2000 {
            let uniform = |kind, token| random.uniform(kind, case, 0, token);
            let logits: Vec<f32> = (0..40)
                .map(|token| (uniform(Use::Order, token) * 30.0 - 15.0) as f32)
                .collect();
            for temperature in [0.1, 0.7, 1.0, 2.5] {
                let reference = |token: usize| {
                    let noise = (-uniform(Use::Token, token).ln()).powf(temperature);
                    f64::from(logits[token]).exp() / noise
                };
                let wanted = (0..40).max_by(|a, b| reference(*a).total_cmp(&reference(*b)));
                let noise = |token| uniform(Use::Token, token);
                let found = gumbel_choice(&logits, temperature, 99, noise);
                assert_eq!(Some(found as usize), wanted, "T {temperature}");
            }
        }
    }

    #[test]
    fn filters_keep_the_nucleus_and_the_best() {
        let mut p = proposer(Sampling::Filtered, 0.0);
        p.top_p = Some(0.5);
        // The first has 0.64 of the mass, so it alone is the nucleus; confidence is renormalised.
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        assert!((found.confidence - 1.0).abs() < 1e-9);
        p.top_p = None;
        p.top_k = Some(2);
        let found = p.propose(&mut LOGITS.clone(), Confidence::Probability, 0, 0);
        let wanted = 2f64.exp() / (2f64.exp() + 1f64.exp());
        assert!((found.confidence - wanted).abs() < 1e-7);
    }
}
