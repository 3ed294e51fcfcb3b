//! How fast models are, from what they took so far.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Operations a second of a model that has not run yet: what two cores of a small machine reach.
const UNMEASURED: f64 = 5e10;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.3;
/// Its weight where it is faster than what was seen before: what slows a run down, its first loading above all,
/// is soon forgotten.
const FASTER: f64 = 0.7;

#[derive(Debug, Clone, Default)]
struct Speed {
    /// Units of work a second.
    rate: Option<f64>,
    /// Mean seconds of each stage.
    stages: BTreeMap<&'static str, f64>,
}

/// Measured speeds by model.
#[derive(Debug, Default)]
pub struct Speeds {
    models: Mutex<BTreeMap<String, Speed>>,
}

impl Speeds {
    /// Seconds that some work takes, as far as is known.
    pub fn seconds(&self, model: &str, units: f64) -> f64 {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = models.get(model).and_then(|speed| speed.rate);
        units / rate.unwrap_or(UNMEASURED)
    }

    /// Takes a measurement: work, its seconds, and those of each stage.
    pub fn measured(
        &self,
        model: &str,
        units: f64,
        seconds: f64,
        stages: &BTreeMap<&'static str, f64>,
    ) {
        if !(units > 0.0 && seconds > 0.0) {
            return;
        }
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let speed = models.entry(model.to_owned()).or_default();
        let rate = units / seconds;
        speed.rate = Some(speed.rate.map_or(rate, |before| match rate > before {
            true => before + FASTER * (rate - before),
            false => mixed(before, rate),
        }));
        for (stage, seconds) in stages {
            speed
                .stages
                .entry(stage)
                .and_modify(|before| *before = mixed(*before, *seconds))
                .or_insert(*seconds);
        }
    }

    /// Seconds of each stage by model, as JSON.
    pub fn to_json(&self) -> Value {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let stages = models
            .iter()
            .map(|(model, speed)| (model.clone(), json!(speed.stages)));
        Value::Object(stages.collect())
    }
}

fn mixed(before: f64, now: f64) -> f64 {
    before + NEWEST * (now - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_measurements() {
        let speeds = Speeds::default();
        assert_eq!(speeds.seconds("a", 1e11), 2.0);
        speeds.measured("a", 1e11, 10.0, &BTreeMap::from([("decode", 4.0)]));
        assert_eq!(speeds.seconds("a", 1e11), 10.0);
        speeds.measured("a", 1e11, 0.0, &BTreeMap::new());
        speeds.measured("a", 1e11, 5.0, &BTreeMap::from([("decode", 2.0)]));
        assert!((5.0..10.0).contains(&speeds.seconds("a", 1e11)));
        assert_eq!(speeds.to_json()["a"]["decode"], 3.4);
    }
}
