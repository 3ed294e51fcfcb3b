//! The residual block of the outer stages.

use brisk_nn::ops::Epilogue;
use brisk_nn::{Conv2d, ConvOptions, Init, Result, RmsNorm, Tensor, Weights};

use super::blocks::{batch_norm, conv3x3, end_of_branch, rms_norm};
use super::config::{Activation, NormKind, StageConfig};

/// `x + norm(conv2(act(conv1(x))))`
pub(super) struct ResBlock {
    conv1: Conv2d,
    /// Batch norm included, where the stage has that.
    conv2: Conv2d,
    norm: Option<RmsNorm>,
    activation: Activation,
}

impl ResBlock {
    /// Rows that the two convolutions see on either side.
    pub(super) const HALO: usize = 2;

    pub(super) fn load(stage: &StageConfig, weights: &Weights, name: &str) -> Result<Self> {
        let channels = stage.channels;
        let conv1 = Conv2d::load(&weights.pp("conv1"), channels, channels, conv3x3(1, true))?;
        let (second, norm) = (weights.pp("conv2"), weights.pp("norm"));
        let (conv2, norm) = match stage.norm {
            NormKind::Rms => {
                let conv = Conv2d::load(&second, channels, channels, conv3x3(1, false))?;
                (conv, Some(rms_norm(&norm, channels)?))
            }
            NormKind::Batch => {
                let norm = batch_norm(&norm, channels, name)?;
                let shape = [channels, channels, 3, 3];
                let weight = second.get("weight", &shape, Init::KaimingUniform)?;
                let (weight, bias) = norm.fold(&weight, None)?;
                let options = ConvOptions {
                    exact: second.is_exact(),
                    ..conv3x3(1, true)
                };
                (Conv2d::new(weight, Some(bias), options)?, None)
            }
        };
        Ok(ResBlock {
            conv1,
            conv2,
            norm,
            activation: stage.activation,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let activated = Epilogue::activation(self.activation.kind());
        let branch = self.conv1.forward_with(x, &activated)?;
        self.conv2
            .forward_with(&branch, &end_of_branch(self.norm.as_ref(), x))
    }
}
