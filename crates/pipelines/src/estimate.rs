//! How long the stages of a plan will take.

use std::collections::BTreeMap;

use crate::machine::Ceilings;
use crate::request::StageCost;

/// Weight of the newest measurement in a stage's correction.
const NEWEST: f64 = 0.3;
/// Bytes a second where the copy could not be measured.
const USUAL_COPY: f64 = 10e9;

/// A stage with its seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSeconds {
    /// Name of the stage, as results report it.
    pub stage: String,
    /// Estimate.
    pub seconds: f64,
}

/// Turns what stages cost into seconds: by the machine's speeds first, corrected for each stage of each
/// model by what its runs took.
#[derive(Debug, Clone)]
pub struct Estimator {
    /// Operations a second.
    operations: f64,
    /// Bytes a second.
    bytes: f64,
    /// Seconds that a stage took in shares of what the speeds say.
    corrections: BTreeMap<(String, String), f64>,
}

impl Estimator {
    /// By measured speeds, those of the matrix product and of the copy.
    pub fn new(ceilings: &Ceilings) -> Self {
        Self {
            operations: ceilings.gemm * 1e9,
            bytes: ceilings.copy.map_or(USUAL_COPY, |copy| copy * 1e9),
            corrections: BTreeMap::new(),
        }
    }

    /// Seconds of every stage of a plan of `model`, loading not counted.
    pub fn stages(&self, model: &str, costs: &[StageCost]) -> Vec<StageSeconds> {
        let stage = |cost: &StageCost| {
            let name = &cost.cost.name;
            let correction = self.correction(model, name).unwrap_or(1.0);
            StageSeconds {
                stage: name.clone(),
                seconds: self.by_speed(cost) * correction,
            }
        };
        costs.iter().map(stage).collect()
    }

    /// Seconds of all stages together.
    pub fn seconds(&self, model: &str, costs: &[StageCost]) -> f64 {
        let stages = self.stages(model, costs).into_iter();
        stages.map(|stage| stage.seconds).sum()
    }

    /// Takes in what stages of a run took; those without a cost are passed over.
    pub fn learn<'s>(
        &mut self,
        model: &str,
        costs: &[StageCost],
        measured: impl IntoIterator<Item = (&'s str, f64)>,
    ) {
        for (stage, seconds) in measured {
            let Some(cost) = costs.iter().find(|cost| cost.cost.name == stage) else {
                continue;
            };
            let expected = self.by_speed(cost);
            if !(expected > 0.0 && seconds > 0.0 && seconds.is_finite()) {
                continue;
            }
            let newest = seconds / expected;
            let key = (model.to_owned(), stage.to_owned());
            self.corrections
                .entry(key)
                .and_modify(|known| *known += NEWEST * (newest - *known))
                .or_insert(newest);
        }
    }

    fn correction(&self, model: &str, stage: &str) -> Option<f64> {
        let key = (model.to_owned(), stage.to_owned());
        self.corrections.get(&key).copied()
    }

    fn by_speed(&self, cost: &StageCost) -> f64 {
        let operations = cost.cost.flops as f64 / self.operations.max(1.0);
        operations.max(cost.bytes() as f64 / self.bytes.max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_models::Cost;

    #[test]
    fn speeds_come_first_and_runs_correct_them() {
        let ceilings = Ceilings {
            fma: 300.0,
            gemm: 200.0,
            copy: Some(20.0),
        };
        let mut estimator = Estimator::new(&ceilings);
        let stage = |name: &str, flops: u64, parameters: u64| {
            let mut cost = Cost::new(name);
            (cost.flops, cost.parameters) = (flops, parameters);
            StageCost {
                cost,
                weight_bytes: 2.0,
            }
        };
        // One is bound by products, one by the weights that it reads.
        let costs = [
            stage("denoise", 400_000_000_000, 1_000),
            stage("text", 1_000, 10_000_000_000),
        ];
        let seconds = |estimator: &Estimator, model: &str| -> Vec<f64> {
            let stages = estimator.stages(model, &costs).into_iter();
            stages.map(|stage| stage.seconds).collect()
        };
        assert_eq!(seconds(&estimator, "m"), [2.0, 1.0]);
        estimator.learn("m", &costs, [("denoise", 3.0), ("png", 1.0), ("text", 0.0)]);
        assert_eq!(seconds(&estimator, "m"), [3.0, 1.0]);
        estimator.learn("m", &costs, [("denoise", 4.0)]);
        assert!((seconds(&estimator, "m")[0] - 3.3).abs() < 1e-9);
        assert_eq!(estimator.seconds("other", &costs), 3.0);
    }
}
