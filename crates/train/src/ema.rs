//! The exponential moving average of the weights.

use brisk_store::TensorSource;
use candle_core::Var;
use rayon::prelude::*;

use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// A running mean of every variable; what is exported and evaluated.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    arrays: Vec<NamedArray>,
}

impl Ema {
    /// Starts at the variables' present values.
    pub fn new(parameters: &[(String, Var)], decay: f64) -> Result<Ema> {
        Ok(Ema {
            decay,
            arrays: tensors::copy_variables(parameters)?,
        })
    }

    /// The decay at `step` finished updates: min(decay, (1 + step) / (10 + step)), so that the start is forgotten.
    pub fn decay_at(&self, step: u64) -> f64 {
        self.decay.min((1 + step) as f64 / (10 + step) as f64)
    }

    /// Moves the mean towards the variables after the update number `step` (from 0). `parameters` are those of [`Ema::new`].
    pub fn update(&mut self, parameters: &[(String, Var)], step: u64) -> Result<()> {
        let decay = self.decay_at(step) as f32;
        self.arrays
            .par_iter_mut()
            .zip(parameters)
            .try_for_each(|(array, (_, variable))| {
                tensors::with_values(variable.as_tensor(), |values| {
                    for (mean, value) in array.values.iter_mut().zip(values) {
                        *mean += (1.0 - decay) * (value - *mean);
                    }
                })
            })
    }

    /// The means, in the variables' order.
    pub fn arrays(&self) -> &[NamedArray] {
        &self.arrays
    }

    /// Takes the means from a checkpoint.
    pub fn load(&mut self, source: &dyn TensorSource) -> Result<()> {
        for array in &mut self.arrays {
            array.values = tensors::read(source, &array.name, &array.shape)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn follows_the_formula_with_its_warm_up() {
        let variable = Var::new(&[1f32, -2.0], &Device::Cpu).unwrap();
        let parameters = vec![("w".to_owned(), variable.clone())];
        let mut ema = Ema::new(&parameters, 0.5).unwrap();
        let mut expected = [1f64, -2.0];
        for step in 0..30u64 {
            let next = [step as f32, 3.0 - step as f32];
            tensors::set(&variable, next.to_vec()).unwrap();
            ema.update(&parameters, step).unwrap();
            let decay = f64::min(0.5, (1 + step) as f64 / (10 + step) as f64);
            for (mean, value) in expected.iter_mut().zip(next) {
                *mean = decay * *mean + (1.0 - decay) * f64::from(value);
            }
        }
        assert_eq!(ema.decay_at(0), 0.1);
        assert_eq!(ema.decay_at(29), 0.5);
        for (got, want) in ema.arrays()[0].values.iter().zip(expected) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }
}
