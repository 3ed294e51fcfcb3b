use brisk_store::TensorSource;
use candle_core::Var;

use super::{Gradients, Optimiser, StepReport};
use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Constants of [`AdamW`].
#[derive(Debug, Clone, Copy)]
pub struct AdamWOptions {
    /// Decay of the mean and of the mean square of the gradient.
    pub betas: (f64, f64),
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Decoupled weight decay, on every parameter.
    pub weight_decay: f64,
    /// Bound of the norm over all gradients.
    pub clip: Option<f64>,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        AdamWOptions {
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: None,
        }
    }
}

/// Moments of one parameter.
#[derive(Debug)]
pub(super) struct State {
    mean: Vec<f32>,
    square: Vec<f32>,
    /// Updates of this parameter, for the bias correction.
    updates: u32,
}

/// Adam with decoupled weight decay and bias correction.
pub struct AdamW {
    parameters: Vec<(String, Var)>,
    states: Vec<State>,
    options: AdamWOptions,
    skipped: u64,
}

impl AdamW {
    /// An optimiser of f32 variables, with empty state.
    pub fn new(parameters: Vec<(String, Var)>, options: AdamWOptions) -> AdamW {
        let states = parameters
            .iter()
            .map(|(_, variable)| State::new(variable.elem_count()))
            .collect();
        AdamW {
            parameters,
            states,
            options,
            skipped: 0,
        }
    }
}

impl State {
    pub(super) fn new(count: usize) -> State {
        State {
            mean: vec![0.0; count],
            square: vec![0.0; count],
            updates: 0,
        }
    }

    /// Adds its arrays, named for the parameter `name`.
    pub(super) fn arrays(&self, name: &str, shape: &[usize], arrays: &mut Vec<NamedArray>) {
        arrays.push(NamedArray {
            name: format!("exp_avg.{name}"),
            shape: shape.to_vec(),
            values: self.mean.clone(),
        });
        arrays.push(NamedArray {
            name: format!("exp_avg_sq.{name}"),
            shape: shape.to_vec(),
            values: self.square.clone(),
        });
        arrays.push(NamedArray {
            name: format!("step.{name}"),
            shape: vec![1],
            // Exact in f32 up to 16 million updates; beyond, the correction is one anyway.
            values: vec![self.updates as f32],
        });
    }

    pub(super) fn load(
        &mut self,
        source: &dyn TensorSource,
        name: &str,
        shape: &[usize],
    ) -> Result<()> {
        self.mean = tensors::read(source, &format!("exp_avg.{name}"), shape)?;
        self.square = tensors::read(source, &format!("exp_avg_sq.{name}"), shape)?;
        self.updates = tensors::read(source, &format!("step.{name}"), &[1])?[0] as u32;
        Ok(())
    }

    pub(super) fn update(
        &mut self,
        weights: &mut [f32],
        gradient: &[f32],
        rate: f64,
        options: &AdamWOptions,
    ) {
        self.updates = self.updates.saturating_add(1);
        let (beta1, beta2) = options.betas;
        let updates = f64::from(self.updates);
        let correction1 = 1.0 - beta1.powf(updates);
        let correction2 = (1.0 - beta2.powf(updates)).sqrt();
        let keep = (1.0 - rate * options.weight_decay) as f32;
        let size = (rate / correction1) as f32;
        let inverse2 = (1.0 / correction2) as f32;
        let (beta1, beta2, epsilon) = (beta1 as f32, beta2 as f32, options.epsilon as f32);
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((weight, g), (mean, square)) in weights.iter_mut().zip(gradient).zip(moments) {
            *mean = beta1 * *mean + (1.0 - beta1) * g;
            *square = beta2 * *square + (1.0 - beta2) * g * g;
            *weight = *weight * keep - size * *mean / (square.sqrt() * inverse2 + epsilon);
        }
    }
}

impl Optimiser for AdamW {
    fn step(&mut self, gradients: Gradients, learning_rate: f64) -> Result<StepReport> {
        let options = &self.options;
        gradients.apply(
            &self.parameters,
            &mut self.states,
            options.clip,
            &mut self.skipped,
            |state, weights, gradient| state.update(weights, gradient, learning_rate, options),
        )
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn state(&self) -> Vec<NamedArray> {
        let mut arrays = Vec::with_capacity(self.states.len() * 3);
        for ((name, variable), state) in self.parameters.iter().zip(&self.states) {
            state.arrays(name, variable.dims(), &mut arrays);
        }
        arrays
    }

    fn load_state(&mut self, source: &dyn TensorSource, skipped: u64) -> Result<()> {
        for ((name, variable), state) in self.parameters.iter().zip(&mut self.states) {
            state.load(source, name, variable.dims())?;
        }
        self.skipped = skipped;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimiser::tests::gradients;
    use crate::rng::Rng;
    use candle_core::{Device, Tensor};

    #[test]
    fn agrees_with_the_scalar_statement() {
        let mut rng = Rng::new(1);
        let start = rng.normals(6);
        let variable = Var::from_vec(start.clone(), (2, 3), &Device::Cpu).unwrap();
        let options = AdamWOptions {
            weight_decay: 0.1,
            ..AdamWOptions::default()
        };
        let mut optimiser = AdamW::new(vec![("w".to_owned(), variable.clone())], options);
        let mut weights: Vec<f64> = start.iter().map(|w| f64::from(*w)).collect();
        let (mut mean, mut square) = (vec![0f64; 6], vec![0f64; 6]);
        for step in 1..=7 {
            let gradient = rng.normals(6);
            let factor = Tensor::from_slice(&gradient, (2, 3), &Device::Cpu).unwrap();
            let loss = (variable.as_tensor() * factor).unwrap().sum_all().unwrap();
            optimiser.step(gradients(&variable, &loss), 0.05).unwrap();
            for i in 0..6 {
                let g = f64::from(gradient[i]);
                mean[i] = 0.9 * mean[i] + 0.1 * g;
                square[i] = 0.999 * square[i] + 0.001 * g * g;
                let m = mean[i] / (1.0 - 0.9f64.powi(step));
                let v = square[i] / (1.0 - 0.999f64.powi(step));
                weights[i] -= 0.05 * 0.1 * weights[i];
                weights[i] -= 0.05 * m / (v.sqrt() + 1e-8);
            }
        }
        let got = tensors::values(&variable.as_tensor().into()).unwrap();
        for (got, want) in got.iter().zip(&weights) {
            assert!((f64::from(*got) - want).abs() < 2e-5, "{got} {want}");
        }
    }
}
