//! Time grids and update rules, read from a published `scheduler_config.json`.
//!
//! A flow sampler walks x from σ ≈ 1 (noise) to σ = 0 (picture) with the velocity v = ε − x0:
//! [`dpm_solver`] is second order, [`flow_euler`] first. [`scm`] is the few-step consistency
//! sampler of SANA-Sprint, on TrigFlow angles. A setting that isn't implemented is an error that names it.

pub mod dpm_solver;
pub mod flow_euler;
pub mod scm;

use std::ops::RangeInclusive;

use brisk_nn::Tensor;
use brisk_store::shown;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use dpm_solver::DpmSolverConfig;
use flow_euler::FlowEulerConfig;
use scm::ScmConfig;

/// A sampler for velocity models.
pub trait FlowSampler: Send {
    /// Time given to the model at each step, on the 0..1000 scale.
    fn timesteps(&self) -> &[f32];
    /// Noise levels, one more than there are steps.
    fn sigmas(&self) -> &[f32];
    /// Moves `sample` from level `index` to `index + 1` by `velocity` of the same shape.
    fn step(&mut self, index: usize, velocity: &Tensor, sample: &Tensor) -> Result<Tensor>;
}

/// The clean-sample estimate x − σv.
pub fn clean_estimate(sample: &Tensor, velocity: &Tensor, sigma: f32) -> Result<Tensor> {
    Ok((sample - velocity.affine(f64::from(sigma), 0.0)?)?)
}

/// A sampler a user can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerKind {
    /// DPM-Solver++ 2M on the flow grid of diffusers.
    DpmSolver,
    /// DPM-Solver++ 2M on the grid of the authors' repository, which ends at σ = 0.003.
    DpmSolverNative,
    /// First-order steps.
    FlowEuler,
    /// Few-step consistency sampling (SANA-Sprint only).
    Scm,
}

impl SchedulerKind {
    /// Every kind, in the order of the help text.
    pub const ALL: [Self; 4] = [
        Self::DpmSolver,
        Self::DpmSolverNative,
        Self::FlowEuler,
        Self::Scm,
    ];

    /// The name users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmSolver => "dpm",
            Self::DpmSolverNative => "dpm-native",
            Self::FlowEuler => "euler",
            Self::Scm => "scm",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
                Error::request(
                    "scheduler",
                    format!("unknown name {name:?}; use one of {}", known.join(", ")),
                )
            })
    }
}

/// A validated `scheduler_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerConfig {
    /// `DPMSolverMultistepScheduler` with flow sigmas.
    DpmSolver(DpmSolverConfig),
    /// `FlowMatchEulerDiscreteScheduler`.
    FlowEuler(FlowEulerConfig),
    /// `SCMScheduler`.
    Scm(ScmConfig),
}

impl SchedulerConfig {
    /// Reads a file's bytes; `label` is its name for messages.
    ///
    /// Python writes `-Infinity` into these files, which JSON doesn't have; such numbers count as null.
    pub fn from_bytes(bytes: &[u8], label: &str) -> Result<Self> {
        let value = brisk_store::parse_json(bytes, label)?;
        Self::from_json(&value, label)
    }

    /// Reads a configuration; `label` is the file name for messages.
    pub fn from_json(value: &Value, label: &str) -> Result<Self> {
        let settings = Settings::new(value, label)?;
        match settings.class() {
            "DPMSolverMultistepScheduler" => Ok(Self::DpmSolver(DpmSolverConfig::read(&settings)?)),
            "FlowMatchEulerDiscreteScheduler" => {
                Ok(Self::FlowEuler(FlowEulerConfig::read(&settings)?))
            }
            "SCMScheduler" => Ok(Self::Scm(ScmConfig::read(&settings)?)),
            other => Err(Error::config(
                label,
                format!(
                    "_class_name is \"{}\"; known: DPMSolverMultistepScheduler, \
                     FlowMatchEulerDiscreteScheduler, SCMScheduler",
                    shown(other)
                ),
            )),
        }
    }

    /// The kind of sampler that the configuration stands for.
    pub fn kind(&self) -> SchedulerKind {
        match self {
            Self::DpmSolver(_) => SchedulerKind::DpmSolver,
            Self::FlowEuler(_) => SchedulerKind::FlowEuler,
            Self::Scm(_) => SchedulerKind::Scm,
        }
    }

    /// The shift of the time grid, where there is one.
    pub fn shift(&self) -> Option<f64> {
        match self {
            Self::DpmSolver(config) => Some(config.shift),
            Self::FlowEuler(config) => Some(config.shift),
            Self::Scm(_) => None,
        }
    }

    /// Builds a flow sampler of `steps` steps. `kind` and `shift` replace what the file says.
    pub fn flow_sampler(
        &self,
        kind: Option<SchedulerKind>,
        shift: Option<f64>,
        steps: usize,
    ) -> Result<Box<dyn FlowSampler>> {
        let shift = shift.or(self.shift()).unwrap_or(3.0);
        check_steps(steps)?;
        if !NUMBERS.contains(&shift) {
            return Err(Error::request(
                "shift",
                format!(
                    "{shift} is no number from {} to {}",
                    NUMBERS.start(),
                    NUMBERS.end()
                ),
            ));
        }
        let order = match self {
            Self::DpmSolver(config) => config.order,
            _ => 2,
        };
        match kind.unwrap_or(self.kind()) {
            SchedulerKind::DpmSolver => {
                let config = DpmSolverConfig {
                    shift,
                    order,
                    train_timesteps: self.train_timesteps(),
                };
                Ok(Box::new(dpm_solver::DpmSolver::new(&config, steps)))
            }
            SchedulerKind::DpmSolverNative => {
                let config = DpmSolverConfig {
                    shift,
                    order,
                    train_timesteps: self.train_timesteps(),
                };
                Ok(Box::new(dpm_solver::DpmSolver::native(&config, steps)))
            }
            SchedulerKind::FlowEuler => {
                let config = FlowEulerConfig {
                    shift,
                    train_timesteps: self.train_timesteps(),
                };
                Ok(Box::new(flow_euler::FlowEuler::new(&config, steps)))
            }
            SchedulerKind::Scm => Err(Error::request(
                "scheduler",
                "scm needs a model distilled for it; use dpm, dpm-native or euler",
            )),
        }
    }

    fn train_timesteps(&self) -> usize {
        match self {
            Self::DpmSolver(config) => config.train_timesteps,
            Self::FlowEuler(config) => config.train_timesteps,
            Self::Scm(_) => 1000,
        }
    }
}

/// Shifts and deviations that grids in f32 can be made with; published ones are 0.5 to 12.
pub const NUMBERS: RangeInclusive<f64> = 1e-3..=1e3;

/// The largest number of steps, which is also the number of training times.
pub const MAX_STEPS: usize = 1000;

/// Refuses step counts outside 1..=1000.
pub fn check_steps(steps: usize) -> Result<()> {
    if (1..=MAX_STEPS).contains(&steps) {
        Ok(())
    } else {
        Err(Error::request(
            "steps",
            format!("{steps} is outside 1..={MAX_STEPS}"),
        ))
    }
}

/// `numpy.linspace(start, end, count)` in f64, end included.
pub(crate) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    match count {
        0 => Vec::new(),
        1 => vec![start],
        _ => {
            let step = (end - start) / (count - 1) as f64;
            let mut values: Vec<f64> = (0..count)
                .map(|index| index as f64 * step + start)
                .collect();
            values[count - 1] = end;
            values
        }
    }
}

/// σ moved towards noise: shift·σ / (1 + (shift − 1)σ).
pub fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The keys of one scheduler file, with readers that name file and key.
pub(crate) struct Settings<'a> {
    keys: &'a Map<String, Value>,
    label: &'a str,
}

impl<'a> Settings<'a> {
    fn new(value: &'a Value, label: &'a str) -> Result<Self> {
        let keys = value
            .as_object()
            .ok_or_else(|| Error::config(label, "is not a JSON object"))?;
        Ok(Self { keys, label })
    }

    fn class(&self) -> &'a str {
        self.keys
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = self
            .keys
            .get(key)
            .map_or("nothing".to_owned(), Value::to_string);
        Error::config(self.label, format!("{key} is {found}; {expected}"))
    }

    /// One of [`NUMBERS`], or the default where the key is absent or null.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| NUMBERS.contains(number))
                .ok_or_else(|| {
                    let expected = format!(
                        "expected a number from {} to {}",
                        NUMBERS.start(),
                        NUMBERS.end()
                    );
                    self.wrong(key, &expected)
                }),
        }
    }

    /// A positive integer below a million.
    pub(crate) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|number| (1..1_000_000).contains(number))
                .map(|number| number as usize)
                .ok_or_else(|| self.wrong(key, "expected a whole number from 1 to 999999")),
        }
    }

    /// Times that the model was trained with: two at least, for a grid has two ends.
    pub(crate) fn train_timesteps(&self) -> Result<usize> {
        let key = "num_train_timesteps";
        match self.count(key, 1000)? {
            1 => Err(self.wrong(key, "expected 2 or more")),
            count => Ok(count),
        }
    }

    /// A setting of which only some values are implemented; absent means `default`.
    pub(crate) fn only(&self, key: &str, default: &Value, allowed: &[Value]) -> Result<()> {
        let found = self.keys.get(key).unwrap_or(default);
        if allowed.contains(found) {
            return Ok(());
        }
        let list: Vec<_> = allowed.iter().map(Value::to_string).collect();
        let found = found.to_string();
        Err(Error::config(
            self.label,
            format!(
                "{key} is {found}, which is not implemented; implemented: {}",
                list.join(", ")
            ),
        ))
    }

    /// Refuses keys outside `known`, unless they are switched off (null or false).
    pub(crate) fn no_others(&self, known: &[&str]) -> Result<()> {
        for (key, value) in self.keys {
            let off = matches!(value, Value::Null | Value::Bool(false));
            if !off && !key.starts_with('_') && !known.contains(&key.as_str()) {
                return Err(Error::config(
                    self.label,
                    format!(
                        "{key} is {value}, a setting that is not implemented; remove it or set it to null"
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_class_and_settings_are_named() {
        let error = SchedulerConfig::from_json(&json!({"_class_name": "DDIMScheduler"}), "s.json")
            .unwrap_err();
        assert!(error.to_string().contains("DDIMScheduler"), "{error}");
        let error = SchedulerConfig::from_json(
            &json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "frobnicate": 3}),
            "s.json",
        )
        .unwrap_err();
        assert!(error.to_string().contains("frobnicate"), "{error}");
        SchedulerConfig::from_json(
            &json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "frobnicate": null}),
            "s.json",
        )
        .unwrap();
        assert!(SchedulerConfig::from_json(&json!([1]), "s.json").is_err());
    }

    #[test]
    fn numbers_that_only_python_writes_are_read() {
        let text = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "lambda": -Infinity, "shift": 2.0,
            "note \" NaN": null, "x": NaN}"#;
        let config = SchedulerConfig::from_bytes(text.as_bytes(), "s.json").unwrap();
        assert_eq!(config.shift(), Some(2.0));
        assert!(SchedulerConfig::from_bytes(b"{", "s.json").is_err());
        assert!(SchedulerConfig::from_bytes(b"\xff", "s.json").is_err());
    }

    #[test]
    fn step_counts_outside_the_range_are_refused() {
        let config = SchedulerConfig::FlowEuler(FlowEulerConfig {
            shift: 3.0,
            train_timesteps: 1000,
        });
        for steps in [0, 1001, 10_000] {
            assert!(config.flow_sampler(None, None, steps).is_err(), "{steps}");
        }
        for steps in [1, 1000] {
            let sampler = config.flow_sampler(None, None, steps).unwrap();
            assert_eq!(sampler.timesteps().len(), steps);
            assert_eq!(sampler.sigmas().len(), steps + 1);
        }
        assert!(
            config
                .flow_sampler(Some(SchedulerKind::Scm), None, 2)
                .is_err()
        );
        assert!(config.flow_sampler(None, Some(-1.0), 2).is_err());
    }

    #[test]
    fn names_round_trip() {
        for kind in SchedulerKind::ALL {
            assert_eq!(SchedulerKind::parse(kind.name()).unwrap(), kind);
        }
        assert!(
            SchedulerKind::parse("ddim")
                .unwrap_err()
                .to_string()
                .contains("dpm-native")
        );
    }
}
