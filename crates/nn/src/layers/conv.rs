//! Convolutions over channels-last maps.

use crate::error::Result;
use crate::ops::{self, DepthwiseWeight, Epilogue, PackedConv2d, can_pack};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// Kernel, stride, padding and bias of a [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output positions.
    pub stride: usize,
    /// Rows and columns of zeros on every side.
    pub padding: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether Winograd's transforms are ruled out (see [`crate::WeightsBuilder::exact`]).
    pub exact: bool,
}

impl ConvOptions {
    /// 3×3, stride 1, padding 1, with a bias.
    pub const SAME_3X3: Self = Self {
        kernel: 3,
        stride: 1,
        padding: 1,
        bias: true,
        exact: false,
    };
}

/// Convolution with a square kernel. Checkpoints store the weight as `[out, in, k, k]`; it is
/// turned to channels-last and packed once at load (a trainable one is turned at every use, so that
/// gradients reach it).
#[derive(Clone, Debug)]
pub struct Conv2d {
    parameters: Parameters,
    options: ConvOptions,
}

#[derive(Clone, Debug)]
enum Parameters {
    /// Packed at load.
    Frozen(PackedConv2d),
    /// Tensors that an optimiser changes.
    Trainable(Tensor, Option<Tensor>),
}

impl Conv2d {
    /// Reads `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    pub fn load(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        options: ConvOptions,
    ) -> Result<Self> {
        let shape = [outputs, inputs, options.kernel, options.kernel];
        let weight = weights.get("weight", &shape, Init::KaimingUniform)?;
        let bias = if options.bias {
            Some(weights.get("bias", &[outputs], Init::Zeros)?)
        } else {
            None
        };
        let exact = options.exact || weights.is_exact();
        Self::new(weight, bias, ConvOptions { exact, ..options })
    }

    /// From tensors at hand: `weight` `[outputs, inputs, kernel, kernel]`, `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, options: ConvOptions) -> Result<Self> {
        let parameters = if can_pack(&weight, bias.as_ref()) {
            Parameters::Frozen(PackedConv2d::new(
                &turn(&weight)?,
                bias.as_ref(),
                options.stride,
                options.padding,
                options.exact,
            )?)
        } else {
            Parameters::Trainable(weight, bias)
        };
        Ok(Self {
            parameters,
            options,
        })
    }

    /// `[batch, height, width, inputs]` to `[batch, height', width', outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ConvOptions {
            stride, padding, ..
        } = self.options;
        match &self.parameters {
            Parameters::Frozen(packed) => packed.forward(x),
            Parameters::Trainable(weight, bias) => {
                ops::conv2d(x, &turn(weight)?, bias.as_ref(), stride, padding)
            }
        }
    }

    /// As [`Conv2d::forward`], followed by `steps`; a frozen layer takes them in the same pass.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match &self.parameters {
            Parameters::Frozen(packed) => packed.forward_with(x, steps),
            Parameters::Trainable(..) => steps.apply(self.forward(x)?),
        }
    }

    /// As [`Conv2d::forward_with`] of the map of which every pixel is made a square of 2×2; a frozen
    /// layer does not make that map.
    pub fn forward_upsampled_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match &self.parameters {
            Parameters::Frozen(packed) => packed.forward_upsampled_with(x, steps),
            Parameters::Trainable(..) => self.forward_with(&ops::upsample_nearest2(x)?, steps),
        }
    }
}

fn turn(weight: &Tensor) -> Result<Tensor> {
    weight.permute((0, 2, 3, 1))?.contiguous()
}

/// Depthwise convolution: an odd kernel a channel, stride 1, zero padding that keeps the size.
#[derive(Clone, Debug)]
pub struct DepthwiseConv2d {
    weight: Tensor,
    turned: bool,
    bias: Option<Tensor>,
}

impl DepthwiseConv2d {
    /// Reads `weight` `[channels, 1, kernel, kernel]` and `bias` `[channels]`.
    pub fn load(weights: &Weights, channels: usize, kernel: usize, bias: bool) -> Result<Self> {
        let weight = weights.get(
            "weight",
            &[channels, 1, kernel, kernel],
            Init::KaimingUniform,
        )?;
        let bias = if bias {
            Some(weights.get("bias", &[channels], Init::Zeros)?)
        } else {
            None
        };
        let turned = !weight.track_op();
        let weight = if turned {
            turn_depthwise(&weight)?
        } else {
            weight
        };
        Ok(Self {
            weight,
            turned,
            bias,
        })
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.turned {
            return ops::depthwise_conv2d(x, &self.weight, self.bias.as_ref());
        }
        ops::depthwise_conv2d(x, &turn_depthwise(&self.weight)?, self.bias.as_ref())
    }
}

impl DepthwiseConv2d {
    /// The parameters of a frozen layer as [`ops`] take them.
    pub fn frozen(&self) -> Option<DepthwiseWeight<'_>> {
        self.turned.then_some(DepthwiseWeight {
            weight: &self.weight,
            bias: self.bias.as_ref(),
        })
    }
}

fn turn_depthwise(weight: &Tensor) -> Result<Tensor> {
    weight.squeeze(1)?.permute((1, 2, 0))?.contiguous()
}
