//! DPM-Solver++ 2M for velocity models (Lu et al. 2022, arXiv 2211.01095, with rectified-flow σ).

use brisk_nn::Tensor;
use serde_json::json;

use super::{FlowSampler, Settings, clean_estimate, linspace, shifted};
use crate::error::Result;

/// What of `DPMSolverMultistepScheduler` can vary.
#[derive(Debug, Clone, PartialEq)]
pub struct DpmSolverConfig {
    /// Shift of the grid towards noise; 3 for most models, 6 at 4096 px.
    pub shift: f64,
    /// 1 or 2.
    pub order: usize,
    /// Number of training times, 1000.
    pub train_timesteps: usize,
}

/// Keys that are read, checked, or have no effect on flow sigmas.
const KNOWN: &[&str] = &[
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "prediction_type",
    "sample_max_value",
    "solver_order",
    "solver_type",
    "steps_offset",
    "time_shift_type",
    "timestep_spacing",
    "use_flow_sigmas",
];

impl DpmSolverConfig {
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        settings.only(
            "algorithm_type",
            &json!("dpmsolver++"),
            &[json!("dpmsolver++")],
        )?;
        settings.only(
            "prediction_type",
            &json!("epsilon"),
            &[json!("flow_prediction")],
        )?;
        settings.only("use_flow_sigmas", &json!(false), &[json!(true)])?;
        settings.only("solver_type", &json!("midpoint"), &[json!("midpoint")])?;
        settings.only("final_sigmas_type", &json!("zero"), &[json!("zero")])?;
        settings.only("solver_order", &json!(2), &[json!(1), json!(2)])?;
        settings.no_others(KNOWN)?;
        Ok(Self {
            shift: settings.number("flow_shift", 1.0)?,
            order: settings.count("solver_order", 2)?,
            train_timesteps: settings.train_timesteps()?,
        })
    }
}

/// The sampler: one velocity a step, remembering the previous clean estimate.
#[derive(Debug, Clone)]
pub struct DpmSolver {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    order: usize,
    previous: Option<Tensor>,
}

impl DpmSolver {
    /// The grid of diffusers: ends at σ = 0, times truncated to integers.
    pub fn new(config: &DpmSolverConfig, steps: usize) -> Self {
        let train = config.train_timesteps as f64;
        let mut sigmas: Vec<f64> = linspace(1.0, 1.0 / train, steps + 1)
            .into_iter()
            .map(|alpha| shifted(1.0 - alpha, config.shift))
            .rev()
            .take(steps)
            .collect();
        let timesteps = sigmas
            .iter()
            .map(|sigma| (sigma * train).trunc() as f32)
            .collect();
        sigmas.push(0.0);
        Self::from_grid(sigmas, timesteps, config.order)
    }

    /// The grid of the authors' repository: ends at σ = 0.003 (shift 3), times truncated to integers
    /// because its models embed integer times.
    pub fn native(config: &DpmSolverConfig, steps: usize) -> Self {
        let train = config.train_timesteps as f64;
        let sigmas: Vec<f64> = linspace(1.0 - 1.0 / train, 1.0 / train, steps + 1)
            .into_iter()
            .map(|sigma| shifted(sigma, config.shift))
            .collect();
        let timesteps = sigmas[..steps]
            .iter()
            .map(|sigma| (sigma * train).trunc() as f32)
            .collect();
        Self::from_grid(sigmas, timesteps, config.order)
    }

    fn from_grid(sigmas: Vec<f64>, timesteps: Vec<f32>, order: usize) -> Self {
        let sigmas = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        Self {
            sigmas,
            timesteps,
            order,
            previous: None,
        }
    }
}

/// Half the log signal-to-noise ratio.
fn log_ratio(sigma: f32) -> f32 {
    (1.0 - sigma).ln() - sigma.ln()
}

impl FlowSampler for DpmSolver {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn step(&mut self, index: usize, velocity: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let clean = clean_estimate(sample, velocity, sigma)?;
        let last = index + 1 == self.timesteps.len();
        let result = if next == 0.0 {
            // h is infinite: the first-order update is the clean estimate itself.
            clean.clone()
        } else {
            let h = log_ratio(next) - log_ratio(sigma);
            let decay = f64::from(next / sigma);
            let gain = f64::from((1.0 - next) * ((-h).exp() - 1.0));
            let first_order = (sample.affine(decay, 0.0)? - clean.affine(gain, 0.0)?)?;
            match &self.previous {
                Some(previous) if !last && self.order == 2 => {
                    let ratio = (log_ratio(sigma) - log_ratio(self.sigmas[index - 1])) / h;
                    let slope = (&clean - previous)?.affine(f64::from(1.0 / ratio), 0.0)?;
                    (first_order - slope.affine(0.5 * gain, 0.0)?)?
                }
                _ => first_order,
            }
        };
        self.previous = Some(clean);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedulers::SchedulerConfig;
    use crate::error::Error;

    fn config(shift: f64) -> DpmSolverConfig {
        DpmSolverConfig {
            shift,
            order: 2,
            train_timesteps: 1000,
        }
    }

    #[test]
    fn grid_of_twenty_steps_shift_three() {
        let solver = DpmSolver::new(&config(3.0), 20);
        let sigmas = [
            0.9996665, 0.9824195, 0.9639411, 0.9440944, 0.9227217, 0.8996398, 0.8746352, 0.8474572,
            0.8178097, 0.785_34, 0.7496248, 0.7101521, 0.6662961, 0.6172836, 0.5621483, 0.4996665,
            0.4282652, 0.3458875, 0.2497916, 0.1362397, 0.0f32,
        ];
        for (found, expected) in solver.sigmas().iter().zip(sigmas) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        let times = [
            999., 982., 963., 944., 922., 899., 874., 847., 817., 785., 749., 710., 666., 617.,
            562., 499., 428., 345., 249., 136f32,
        ];
        assert_eq!(solver.timesteps(), times);
    }

    #[test]
    fn grid_of_shift_six_and_of_four_steps() {
        let solver = DpmSolver::new(&config(6.0), 20);
        assert_eq!(
            solver.timesteps(),
            [
                999., 991., 981., 971., 959., 947., 933., 917., 899., 879., 856., 830., 799., 763.,
                719., 666., 599., 513., 399., 239f32
            ]
        );
        assert!((solver.sigmas()[19] - 0.239_808).abs() < 1e-7);
        assert_eq!(
            DpmSolver::new(&config(3.0), 4).timesteps(),
            [999., 899., 749., 499f32]
        );
        let one = DpmSolver::new(&config(3.0), 1);
        assert_eq!((one.timesteps(), one.sigmas()[1]), (&[999f32][..], 0.0));
    }

    #[test]
    fn native_grid_stops_short_of_zero() {
        let solver = DpmSolver::native(&config(3.0), 20);
        assert_eq!(solver.sigmas().len(), 21);
        assert!((solver.sigmas()[0] - 0.99967).abs() < 1e-5);
        assert!((solver.sigmas()[20] - 0.0029940).abs() < 1e-7);
    }

    /// A straight path x0 + σ(ε − x0) has constant velocity, which every order must follow exactly.
    #[test]
    fn straight_paths_are_exact() {
        let clean = Tensor::new(&[0.3f32, -1.2, 2.0]).unwrap();
        let noise = Tensor::new(&[1.1f32, 0.4, -0.7]).unwrap();
        let velocity = (&noise - &clean).unwrap();
        for (mut solver, end) in [
            (DpmSolver::new(&config(3.0), 7), 0.0f64),
            (DpmSolver::native(&config(3.0), 7), 0.0029940),
        ] {
            let first = f64::from(solver.sigmas()[0]);
            let mut sample = (&clean + velocity.affine(first, 0.0).unwrap()).unwrap();
            for index in 0..7 {
                sample = solver.step(index, &velocity, &sample).unwrap();
            }
            let expected = (&clean + velocity.affine(end, 0.0).unwrap()).unwrap();
            let found = sample.to_vec1::<f32>().unwrap();
            for (a, b) in found.iter().zip(expected.to_vec1::<f32>().unwrap()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    /// On a curved path the second order must beat the first.
    #[test]
    fn second_order_is_more_accurate() {
        // v = x has the solution x(σ) = x(1)·exp(σ − 1).
        let run = |order| {
            let mut solver = DpmSolver::new(
                &DpmSolverConfig {
                    order,
                    ..config(1.0)
                },
                40,
            );
            let start = f64::from(solver.sigmas()[0] - 1.0).exp() as f32;
            let mut sample = Tensor::new(&[start]).unwrap();
            for index in 0..40 {
                sample = solver.step(index, &sample.clone(), &sample).unwrap();
            }
            (f64::from(sample.to_vec1::<f32>().unwrap()[0]) - (-1.0f64).exp()).abs()
        };
        assert!(run(2) < 0.25 * run(1), "{} {}", run(2), run(1));
    }

    #[test]
    fn settings_that_are_not_implemented_are_named() {
        let base = json!({
            "_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true,
            "prediction_type": "flow_prediction", "flow_shift": 3.0
        });
        assert_eq!(
            SchedulerConfig::from_json(&base, "f").unwrap(),
            SchedulerConfig::DpmSolver(config(3.0))
        );
        for (key, value) in [
            ("algorithm_type", json!("sde-dpmsolver++")),
            ("solver_order", json!(3)),
            ("solver_type", json!("heun")),
            ("use_karras_sigmas", json!(true)),
            ("use_dynamic_shifting", json!(true)),
            ("thresholding", json!(true)),
            ("final_sigmas_type", json!("sigma_min")),
            ("prediction_type", json!("epsilon")),
            ("use_flow_sigmas", json!(false)),
            ("flow_shift", json!("three")),
        ] {
            let mut changed = base.clone();
            changed[key] = value;
            let error = SchedulerConfig::from_json(&changed, "f").unwrap_err();
            assert!(
                matches!(error, Error::Config { .. }) && error.to_string().contains(key),
                "{error}"
            );
        }
    }
}
