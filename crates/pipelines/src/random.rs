//! Random numbers that depend on where they are used, not on what was drawn before: what is made in a batch
//! is what is made alone, whatever the number of threads.

use brisk_nn::random::SplitMix64;

/// A place among random numbers. What stands below it is reached part by part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The place of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// The place `part` below this one: a purpose, a step, a position.
    pub fn at(self, part: u64) -> Self {
        Self {
            state: mix(self.state ^ part),
        }
    }

    /// The uniform of this place, in (0, 1), of 53 bits.
    pub fn uniform(self) -> f64 {
        ((self.state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// The standard Gumbel value of this place: what is added to logits so that the largest sum is a draw.
    pub fn gumbel(self) -> f64 {
        -(-self.uniform().ln()).ln()
    }
}

/// The first number from this state.
fn mix(state: u64) -> u64 {
    SplitMix64::new(state).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gumbel_values_have_their_mean_and_variance() {
        let place = Random::new(3).at(1);
        let draws: Vec<f64> = (0..40_000).map(|i| place.at(i).gumbel()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let squares = draws.iter().map(|draw| (draw - mean).powi(2));
        let variance = squares.sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5772).abs() < 0.02, "{mean}");
        let wanted = std::f64::consts::PI.powi(2) / 6.0;
        assert!((variance - wanted).abs() < 0.05, "{variance}");
        assert_ne!(place.at(0).uniform(), place.uniform());
    }
}
