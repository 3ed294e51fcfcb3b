//! Batch norms whose statistics stay 0 and 1: with weights that keep signals as strong as they are (He et al. 2015) small
//! networks on pictures of one kind learn without statistics that follow the batches, every picture's gradient is its
//! own, and the published layout is kept.

use candle_core::Var;

use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Names that statistics end with.
const MEAN: &str = "running_mean";
const VARIANCE: &str = "running_var";
/// From weights that are uniform in ±1/√inputs, PyTorch's initial ones, to those whose variance is 2/inputs: rectified
/// signals keep their strength.
const STRONGER: f32 = 2.449_489_8;

/// The statistics of a network's batch norms.
pub(super) struct FixedNorms(Vec<NamedArray>);

impl FixedNorms {
    /// Splits the variables of a network into statistics and parameters to train; where it is `new`, its convolutions
    /// are made stronger.
    pub fn of(variables: Vec<(String, Var)>, new: bool) -> Result<(Self, Vec<(String, Var)>)> {
        let is_statistic = |name: &str| name.ends_with(MEAN) || name.ends_with(VARIANCE);
        let (statistics, parameters): (Vec<_>, Vec<_>) = variables
            .into_iter()
            .partition(|(name, _)| is_statistic(name));
        for (_, variable) in &parameters {
            if new && variable.rank() == 4 {
                tensors::update(variable, |weights| {
                    weights.iter_mut().for_each(|weight| *weight *= STRONGER);
                })?;
            }
        }
        let fixed = statistics
            .iter()
            .map(|(name, variable)| NamedArray::of_variable(name, variable))
            .collect::<Result<_>>()?;
        Ok((Self(fixed), parameters))
    }

    /// All arrays of the network, with those of its parameters.
    pub fn with(&self, parameters: &[NamedArray]) -> Vec<NamedArray> {
        parameters.iter().chain(&self.0).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_models::craft::{Craft, CraftConfig};
    use brisk_nn::{Tensor, Trace, Weights};

    #[test]
    fn signals_keep_their_strength_from_the_first_layer_to_the_deepest() {
        let config = CraftConfig {
            stage_channels: [16, 16, 16, 16, 16],
            deep_channels: 16,
            join_channels: [16, 16, 16, 8],
            head_channels: [8, 8],
        };
        let weights = Weights::trainable(None, 3);
        Craft::load(&config, &weights).unwrap();
        let (fixed, parameters) = FixedNorms::of(weights.variables(), true).unwrap();
        assert!(parameters.iter().all(|(name, _)| !name.contains("running")));
        let source = tensors::memory_source(
            &fixed.with(&tensors::copy_variables(&parameters).unwrap()),
            "",
            false,
        );
        let network = Craft::load(&config, &Weights::from_source(source.unwrap())).unwrap();
        let values: Vec<f32> = (0..64 * 64 * 3)
            .map(|at| 1.4 * (at as f32 * 1.7).sin())
            .collect();
        let pixels = Tensor::from_vec(values, (1, 64, 64, 3)).unwrap();
        let mut strengths = Vec::new();
        let mut see = |name: &str, x: &Tensor| {
            if name.starts_with("skips") {
                let mean = x.sqr().unwrap().mean_all().unwrap();
                strengths.push(mean.to_scalar::<f32>().unwrap());
            }
        };
        network
            .forward(&pixels, &mut Trace::parts(&mut see))
            .unwrap();
        assert_eq!(strengths.len(), 4);
        for strength in strengths {
            assert!((0.05..20.0).contains(&strength), "{strength}");
        }
    }
}
