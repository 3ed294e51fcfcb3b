//! Random numbers addressed by step, position and token: a sequence decodes the same alone and in a batch,
//! with and without a cache.

use crate::random::Random as Place;

/// A source of uniforms, addressed by step, position and token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(Place);

/// What a number is for, so that no two uses share one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Token = 1,
    Confidence = 2,
    Transfer = 3,
    Order = 4,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Place::new(seed))
    }

    /// A uniform in (0, 1), of 53 bits.
    pub(super) fn uniform(&self, purpose: Use, step: usize, position: usize, token: usize) -> f64 {
        let parts = [purpose as u64, step as u64, position as u64, token as u64];
        parts.into_iter().fold(self.0, Place::at).uniform()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_are_uniform_and_independent_of_their_address() {
        let random = Random::new(7);
        let draws: Vec<f64> = (0..20_000)
            .map(|i| random.uniform(Use::Token, i % 7, i % 50, i))
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let pairs = draws.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5));
        let covariance = pairs.sum::<f64>() / draws.len() as f64;
        assert!(covariance.abs() < 0.003, "{covariance}");
        let other = Random::new(8).uniform(Use::Token, 0, 0, 0);
        assert!((other - draws[0]).abs() > 1e-9);
    }
}
