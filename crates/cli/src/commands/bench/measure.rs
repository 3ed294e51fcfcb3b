//! Runs work several times and keeps the seconds of its parts.

use std::time::Instant;

use brisk_models::Cost;

use super::RunArguments;
use super::report::Stage;
use crate::failure::Result;
use crate::progress::Stages;

/// Collects the parts of one run.
pub struct Laps {
    last: Instant,
    parts: Vec<(String, f64)>,
}

impl Laps {
    fn start() -> Self {
        Self {
            last: Instant::now(),
            parts: Vec::new(),
        }
    }

    /// Counts the time since the last lap for the part `name`, which may come up again.
    pub fn lap(&mut self, name: &str) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        self.add(name, seconds);
    }

    /// Counts seconds measured elsewhere.
    pub fn add(&mut self, name: &str, seconds: f64) {
        match self.parts.iter_mut().find(|(part, _)| part == name) {
            Some((_, sum)) => *sum += seconds,
            None => self.parts.push((name.to_owned(), seconds)),
        }
    }
}

/// What several runs took.
pub struct Measured<T> {
    /// Seconds of each whole run.
    pub total: Vec<f64>,
    /// Seconds of each part in each run, in the order they first came up.
    pub parts: Vec<(String, Vec<f64>)>,
    /// What the last run gave.
    pub result: T,
}

/// Runs `work` as often as asked for.
pub fn measure<T>(
    arguments: &RunArguments,
    mut work: impl FnMut(&mut Laps) -> Result<T>,
) -> Result<Measured<T>> {
    let mut stages = Stages::new();
    if arguments.warm_up > 0 {
        stages.stage("warm-up", u64::from(arguments.warm_up));
    }
    for index in 0..arguments.warm_up {
        work(&mut Laps::start())?;
        stages.step(u64::from(index) + 1, u64::from(arguments.warm_up));
    }
    stages.stage("runs", u64::from(arguments.runs));
    let mut total = Vec::new();
    let mut parts: Vec<(String, Vec<f64>)> = Vec::new();
    let mut index = 0;
    let result = loop {
        let mut laps = Laps::start();
        let started = laps.last;
        let result = work(&mut laps)?;
        total.push(started.elapsed().as_secs_f64());
        for (name, seconds) in laps.parts {
            match parts.iter_mut().find(|(part, _)| *part == name) {
                Some((_, all)) => all.push(seconds),
                None => parts.push((name, vec![seconds])),
            }
        }
        index += 1;
        stages.step(u64::from(index), u64::from(arguments.runs));
        if index >= arguments.runs {
            break result;
        }
    };
    stages.finish();
    Ok(Measured {
        total,
        parts,
        result,
    })
}

impl<T> Measured<T> {
    /// The whole under `name`, then its parts, each with what `costs` knows of it.
    pub fn stages(&self, name: &str, costs: &[Cost], weight_bytes: f64) -> Vec<Stage> {
        let whole =
            Stage::new(name, self.total.clone()).with_cost(&Cost::sum(name, costs), weight_bytes);
        let parts = self.parts.iter().map(|(part, seconds)| {
            let stage = Stage::part(part, seconds.clone());
            match costs.iter().find(|cost| cost.name == *part) {
                Some(cost) => stage.with_cost(cost, weight_bytes),
                None => stage,
            }
        });
        std::iter::once(whole).chain(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_of_one_name_add_up() {
        let mut laps = Laps::start();
        laps.add("a", 1.0);
        laps.add("b", 2.0);
        laps.add("a", 3.0);
        assert_eq!(laps.parts, [("a".to_owned(), 4.0), ("b".to_owned(), 2.0)]);
    }
}
