//! Optimisers over named variables. The update runs on plain slices, parallel over parameters; every sum has a fixed order,
//! so the same gradients give the same weights whatever the number of threads.

mod adamw;
mod came;
mod momentum;
mod muon;
mod probe;

use brisk_store::TensorSource;
use candle_core::Var;
use candle_core::backprop::GradStore;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use adamw::{AdamW, AdamWOptions};
pub use came::{Came, CameOptions};
pub use momentum::{BlockRule, EightBit, NamedCodes};
pub use muon::{Muon, MuonOptions};
pub use probe::{ProbeOutputs, Probed};

use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// What one update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Norm over all gradients, before clipping.
    pub gradient_norm: f64,
    /// True when a gradient was not finite and nothing was changed.
    pub skipped: bool,
}

/// An optimiser that owns its variables and its state.
pub trait Optimiser: Send {
    /// Updates every variable that has a gradient, at the rate `learning_rate`.
    fn step(&mut self, gradients: Gradients, learning_rate: f64) -> Result<StepReport>;

    /// Updates skipped for non-finite gradients, over the whole run.
    fn skipped(&self) -> u64;

    /// The state as named arrays, `{kind}.{parameter}`.
    fn state(&self) -> Vec<NamedArray>;

    /// What of the state is kept in 8 bits.
    fn codes(&self) -> Vec<NamedCodes> {
        Vec::new()
    }

    /// Bytes of the state.
    fn state_bytes(&self) -> u64 {
        let arrays: usize = self
            .state()
            .iter()
            .map(|array| 4 * array.values.len())
            .sum();
        let codes: usize = self.codes().iter().map(|codes| codes.values.len()).sum();
        (arrays + codes) as u64
    }

    /// Takes the state back from what [`Optimiser::state`] and [`Optimiser::codes`] gave.
    fn load_state(&mut self, source: &dyn TensorSource, skipped: u64) -> Result<()>;
}

/// Which optimiser a recipe asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    /// [`Came`].
    Came,
    /// [`Came`] with its momentum in blocks of 8 bits.
    Came8bit,
    /// [`AdamW`].
    Adamw,
    /// [`Muon`], with [`AdamW`] for what is no matrix of a hidden layer.
    Muon,
}

/// What a recipe says of any optimiser.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptimiserOptions {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Bound of the norm over all gradients.
    pub clip: Option<f64>,
    /// Decays of AdamW's mean and mean square; its own when left out.
    pub betas: Option<(f64, f64)>,
    /// How CAME-8bit keeps its momentum; as SANA-1.5 does when left out.
    pub eight_bit: Option<EightBit>,
}

/// Builds an optimiser with the default constants of its kind where the options leave them open.
pub fn build(
    kind: OptimiserKind,
    parameters: Vec<(String, Var)>,
    options: OptimiserOptions,
) -> Box<dyn Optimiser> {
    let OptimiserOptions {
        weight_decay, clip, ..
    } = options;
    let adamw = AdamWOptions {
        weight_decay,
        clip,
        betas: options.betas.unwrap_or(AdamWOptions::default().betas),
        ..AdamWOptions::default()
    };
    match kind {
        OptimiserKind::Came | OptimiserKind::Came8bit => Box::new(Came::new(
            parameters,
            CameOptions {
                weight_decay,
                clip,
                eight_bit: (kind == OptimiserKind::Came8bit)
                    .then(|| options.eight_bit.unwrap_or_default()),
                ..CameOptions::default()
            },
        )),
        OptimiserKind::Adamw => Box::new(AdamW::new(parameters, adamw)),
        OptimiserKind::Muon => Box::new(Muon::new(
            parameters,
            MuonOptions {
                adamw,
                ..MuonOptions::default()
            },
        )),
    }
}

/// The gradient of a batch: the sum of its parts.
#[derive(Debug)]
pub struct Gradients {
    /// One a parameter; none where the loss does not depend on it.
    arrays: Vec<Option<Vec<f32>>>,
    /// Norm over all of them.
    norm: f64,
}

impl Gradients {
    /// Adds up the parts of a batch, each with its weight, for the given parameters.
    pub fn sum(parameters: &[(String, Var)], parts: &[(f64, GradStore)]) -> Result<Gradients> {
        let arrays = parameters
            .par_iter()
            .map(|(_, variable)| {
                let mut sum: Option<Vec<f32>> = None;
                for (weight, store) in parts {
                    let Some(gradient) = store.get(variable.as_tensor()) else {
                        continue;
                    };
                    let weight = *weight as f32;
                    tensors::with_values(gradient, |values| match &mut sum {
                        None => sum = Some(values.iter().map(|g| weight * g).collect()),
                        Some(sum) => sum
                            .iter_mut()
                            .zip(values)
                            .for_each(|(s, g)| *s += weight * g),
                    })?;
                }
                let squares = sum.iter().flatten().map(|g| f64::from(*g).powi(2)).sum();
                Ok((sum, squares))
            })
            .collect::<Result<Vec<(Option<Vec<f32>>, f64)>>>()?;
        let norm = arrays
            .iter()
            .map(|(_, squares)| squares)
            .sum::<f64>()
            .sqrt();
        Ok(Gradients {
            arrays: arrays.into_iter().map(|(values, _)| values).collect(),
            norm,
        })
    }

    /// One array a parameter, none where the loss does not depend on it.
    pub(crate) fn into_arrays(self) -> Vec<Option<Vec<f32>>> {
        self.arrays
    }

    /// Of given values, one array a parameter.
    pub(crate) fn of(arrays: Vec<Option<Vec<f32>>>) -> Gradients {
        let values = arrays.iter().flatten().flatten();
        let norm = values.map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        Gradients { arrays, norm }
    }

    /// What to multiply them with so that the norm keeps to the bound.
    fn clip_scale(&self, clip: Option<f64>) -> f32 {
        match clip {
            Some(bound) if self.norm > bound => (bound / self.norm) as f32,
            _ => 1.0,
        }
    }

    /// Calls `update(state, weights, gradient)` for every parameter that has a gradient, clipped,
    /// in parallel. A norm that is not finite changes nothing but the count of skipped updates.
    fn apply<S: Send>(
        self,
        parameters: &[(String, Var)],
        states: &mut [S],
        clip: Option<f64>,
        skipped: &mut u64,
        update: impl Fn(&mut S, &mut [f32], &mut [f32]) + Sync,
    ) -> Result<StepReport> {
        let report = StepReport {
            gradient_norm: self.norm,
            skipped: !self.norm.is_finite(),
        };
        if report.skipped {
            *skipped += 1;
            return Ok(report);
        }
        let scale = self.clip_scale(clip);
        parameters
            .par_iter()
            .zip(states)
            .zip(self.arrays)
            .try_for_each(|(((_, variable), state), gradient)| {
                let Some(mut gradient) = gradient else {
                    return Ok(());
                };
                gradient.iter_mut().for_each(|g| *g *= scale);
                tensors::update(variable, |weights| update(state, weights, &mut gradient))
            })?;
        Ok(report)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// The gradient of a loss of one variable.
    pub fn gradients(variable: &Var, loss: &Tensor) -> Gradients {
        let parameters = [("w".to_owned(), variable.clone())];
        Gradients::sum(&parameters, &[(1.0, loss.backward().unwrap())]).unwrap()
    }

    fn line(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn clipping_scales_to_the_bound_and_not_below_it() {
        let a = Var::new(&[1f32, 1.0], &Device::Cpu).unwrap();
        let b = Var::new(&[1f32], &Device::Cpu).unwrap();
        let unused = Var::new(&[1f32], &Device::Cpu).unwrap();
        let loss = (a.as_tensor() * line(&[3.0, 0.0]))
            .unwrap()
            .sum_all()
            .unwrap();
        let loss = (loss + (b.as_tensor() * 4.0).unwrap().sum_all().unwrap()).unwrap();
        let store = loss.backward().unwrap();
        let parameters = vec![
            ("a".to_owned(), a),
            ("b".to_owned(), b),
            ("unused".to_owned(), unused),
        ];
        let gradients = Gradients::sum(&parameters, &[(1.0, store)]).unwrap();
        assert_eq!(gradients.norm, 5.0);
        assert!((gradients.clip_scale(Some(1.0)) - 0.2).abs() < 1e-7);
        assert_eq!(gradients.clip_scale(Some(6.0)), 1.0);
        assert!(gradients.arrays[2].is_none());
    }

    #[test]
    fn non_finite_gradients_change_nothing_and_are_counted() {
        for kind in [
            OptimiserKind::Came,
            OptimiserKind::Came8bit,
            OptimiserKind::Adamw,
            OptimiserKind::Muon,
        ] {
            let variable = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
            let mut optimiser = build(
                kind,
                vec![("w".to_owned(), variable.clone())],
                OptimiserOptions {
                    weight_decay: 0.1,
                    clip: Some(1.0),
                    ..OptimiserOptions::default()
                },
            );
            let loss = (variable.as_tensor() * line(&[f32::NAN, 1.0])).unwrap();
            let loss = loss.sum_all().unwrap();
            let report = optimiser.step(gradients(&variable, &loss), 0.1).unwrap();
            assert!(report.skipped);
            assert_eq!(optimiser.skipped(), 1);
            assert_eq!(variable.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
            let loss = (variable.as_tensor() * line(&[1.0, 1.0])).unwrap();
            let loss = loss.sum_all().unwrap();
            assert!(
                !optimiser
                    .step(gradients(&variable, &loss), 0.1)
                    .unwrap()
                    .skipped
            );
            assert_ne!(variable.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        }
    }
}
