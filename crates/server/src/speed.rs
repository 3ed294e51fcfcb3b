//! How long requests take, from what they cost and what runs took so far.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brisk::{Estimator, StageCost};
use brisk_pipelines::machine::Ceilings;
use serde_json::{Value, json};

/// What two cores of a small machine reach. A model's first run corrects it, stage by stage, so nobody waits
/// for a measurement at the start.
const UNMEASURED: Ceilings = Ceilings {
    fma: 100.0,
    gemm: 50.0,
    copy: Some(10.0),
};
/// Weight of the newest measurement in a mean.
const NEWEST: f64 = 0.3;

struct Inner {
    estimator: Estimator,
    /// Mean seconds of each stage, by model.
    stages: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Measured speeds by model.
pub struct Speeds(Mutex<Inner>);

impl Default for Speeds {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            estimator: Estimator::new(&UNMEASURED),
            stages: BTreeMap::new(),
        }))
    }
}

impl Speeds {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that some work takes, as far as is known; of work that is not counted what such took so far.
    pub fn seconds(&self, model: &str, costs: &[StageCost]) -> f64 {
        let inner = self.inner();
        match (costs, inner.stages.get(model)) {
            ([], Some(stages)) => stages.values().sum(),
            _ => inner.estimator.seconds(model, costs),
        }
    }

    /// Whether a run of the model was measured.
    pub fn knows(&self, model: &str) -> bool {
        self.inner().stages.contains_key(model)
    }

    /// Takes in what the stages of a run took.
    pub fn measured<'s>(
        &self,
        model: &str,
        costs: &[StageCost],
        stages: impl IntoIterator<Item = (&'s str, f64)>,
    ) {
        let stages: Vec<(&str, f64)> = stages.into_iter().collect();
        let mut inner = self.inner();
        inner.estimator.learn(model, costs, stages.iter().copied());
        let means = inner.stages.entry(model.to_owned()).or_default();
        for (stage, seconds) in stages {
            means
                .entry(stage.to_owned())
                .and_modify(|mean| *mean += NEWEST * (seconds - *mean))
                .or_insert(seconds);
        }
    }

    /// Seconds of each stage by model, as JSON.
    pub fn to_json(&self) -> Value {
        json!(self.inner().stages)
    }
}

impl std::fmt::Debug for Speeds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Speeds").finish_non_exhaustive()
    }
}
