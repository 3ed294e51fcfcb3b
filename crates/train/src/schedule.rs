//! The learning rate over a run.

use serde::{Deserialize, Serialize};

/// What follows the linear warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// The peak rate until the end.
    Constant,
    /// Half a cosine from the peak rate to zero at the end of the run.
    Cosine,
    /// A straight line from the peak rate to zero at the end of the run.
    Linear,
}

/// How the peak rate grows with the samples of an update: by what it is given for 256 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateScaling {
    /// With their root.
    SquareRoot,
    /// As they do.
    Linear,
}

impl RateScaling {
    /// What the rate is multiplied with for so many samples.
    pub fn factor(self, batch: usize) -> f64 {
        let share = batch as f64 / 256.0;
        match self {
            RateScaling::SquareRoot => share.sqrt(),
            RateScaling::Linear => share,
        }
    }
}

/// Linear warm-up, then [`Decay`].
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warm_up_steps: u64,
    /// What follows.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of the update that follows `step` finished ones, when the share `progress` (0..=1) of the run is over.
    pub fn rate(&self, step: u64, progress: f64) -> f64 {
        let warm_up = if self.warm_up_steps == 0 {
            1.0
        } else {
            ((step + 1) as f64 / self.warm_up_steps as f64).min(1.0)
        };
        let decay = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - progress.clamp(0.0, 1.0),
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.clamp(0.0, 1.0)).cos()),
        };
        self.peak * warm_up * decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_follows_the_cosine() {
        let schedule = Schedule {
            peak: 2.0,
            warm_up_steps: 4,
            decay: Decay::Cosine,
        };
        assert_eq!(schedule.rate(0, 0.0), 0.5);
        assert_eq!(schedule.rate(3, 0.0), 2.0);
        assert!((schedule.rate(50, 0.5) - 1.0).abs() < 1e-12);
        assert!(schedule.rate(100, 1.0).abs() < 1e-12);
        let constant = Schedule {
            decay: Decay::Constant,
            warm_up_steps: 0,
            ..schedule
        };
        assert_eq!(constant.rate(0, 1.0), 2.0);
        let linear = Schedule {
            decay: Decay::Linear,
            ..constant
        };
        assert_eq!(linear.rate(9, 0.75), 0.5);
        assert_eq!(RateScaling::SquareRoot.factor(64), 0.5);
        assert_eq!(RateScaling::Linear.factor(64), 0.25);
    }
}
