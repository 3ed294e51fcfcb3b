//! Convolutions over channels-last maps.

use crate::error::{Error, Result};
use crate::ops::{self, DepthwiseWeight, Epilogue, PackedConv2d, can_pack};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// Kernel, stride, padding, dilation and bias of a [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output positions.
    pub stride: usize,
    /// Rows and columns of zeros on every side.
    pub padding: usize,
    /// Step between the kernel's taps; more than 1 goes with a stride of 1 and the padding that keeps the
    /// size, dilation·(kernel − 1)/2.
    pub dilation: usize,
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
        dilation: 1,
        bias: true,
        exact: false,
    };
}

/// Convolution with a square kernel. Checkpoints store the weight as `[out, in, k, k]`; it is
/// turned to channels-last and packed once at load (a trainable one is turned at every use, so that
/// gradients reach it, not its input alone).
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
    ///
    /// # Errors
    /// A dilation that its stride or padding does not go with.
    pub fn new(weight: Tensor, bias: Option<Tensor>, options: ConvOptions) -> Result<Self> {
        let ConvOptions {
            kernel,
            stride,
            padding,
            dilation,
            ..
        } = options;
        let keeps_size = kernel % 2 == 1 && stride == 1 && padding == dilation * (kernel / 2);
        if dilation == 0 || (dilation > 1 && !keeps_size) {
            return Err(Error::Config(format!(
                "a convolution with dilation {dilation}, stride {stride} and padding {padding}: a dilation \
                 goes with an odd kernel, stride 1 and padding dilation·(kernel − 1)/2"
            )));
        }
        // Of a part of the map the taps are neighbours, see `apart`.
        let options = ConvOptions {
            padding: padding / dilation,
            ..options
        };
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
            stride,
            padding,
            dilation,
            ..
        } = self.options;
        if dilation > 1 {
            return apart(x, dilation, |x| self.near().forward(x));
        }
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
            _ if self.options.dilation > 1 => steps.apply(self.forward(x)?),
            Parameters::Frozen(packed) => packed.forward_with(x, steps),
            Parameters::Trainable(..) => steps.apply(self.forward(x)?),
        }
    }

    /// As [`Conv2d::forward_with`] of the map of which every pixel is made a square of 2×2; a frozen
    /// layer does not make that map.
    pub fn forward_upsampled_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match &self.parameters {
            _ if self.options.dilation > 1 => self.forward_with(&ops::upsample_nearest2(x)?, steps),
            Parameters::Frozen(packed) => packed.forward_upsampled_with(x, steps),
            Parameters::Trainable(..) => self.forward_with(&ops::upsample_nearest2(x)?, steps),
        }
    }
}

impl Conv2d {
    /// The same taps side by side.
    fn near(&self) -> Self {
        let options = ConvOptions {
            dilation: 1,
            ..self.options
        };
        Self {
            options,
            ..self.clone()
        }
    }
}

/// Runs `work`, which keeps the size, on the `step`² maps of every `step`-th row and column, where
/// neighbours are `step` apart in the map `[batch, height, width, channels]`.
fn apart(x: &Tensor, step: usize, work: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let (rows, columns) = (height.div_ceil(step), width.div_ceil(step));
    let x = x.pad_with_zeros(1, 0, rows * step - height)?;
    let x = x.pad_with_zeros(2, 0, columns * step - width)?;
    let maps = x
        .reshape(vec![batch, rows, step, columns, step, channels])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .contiguous()?
        .reshape((batch * step * step, rows, columns, channels))?;
    let y = work(&maps)?;
    let channels = y.dim(3)?;
    let y = y
        .reshape(vec![batch, step, step, rows, columns, channels])?
        .permute(vec![0, 3, 1, 4, 2, 5])?
        .contiguous()?
        .reshape((batch, rows * step, columns * step, channels))?;
    y.narrow(1, 0, height)?.narrow(2, 0, width)?.contiguous()
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
        Self::new(weight, bias)
    }

    /// From tensors at hand: `weight` `[channels, 1, kernel, kernel]`, `bias` `[channels]`.
    ///
    /// # Errors
    /// A weight of another shape.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
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
    /// As [`DepthwiseConv2d::forward`] at every `stride`-th row and column, of a frozen layer.
    ///
    /// # Errors
    /// A layer that is trained, where the stride is not 1.
    pub fn forward_strided(&self, x: &Tensor, stride: usize) -> Result<Tensor> {
        match (stride, self.frozen()) {
            (1, _) => self.forward(x),
            (_, Some(frozen)) => ops::depthwise_conv2d_strided(x, frozen, stride),
            (_, None) => Err(Error::Config(format!(
                "a depthwise convolution with stride {stride} is not trained, only run"
            ))),
        }
    }

    /// As [`DepthwiseConv2d::forward`]; then the first half of the channels by SiLU of the second,
    /// `[batch, height, width, channels / 2]`.
    pub(crate) fn forward_gated_silu(&self, x: &Tensor) -> Result<Tensor> {
        let frozen = self
            .frozen()
            .filter(|depth| depth.weight.elem_count() == 9 * x.dims().last().copied().unwrap_or(0));
        match (x.device(), frozen) {
            (Some(x), Some(depth)) => {
                let weight = depth.weight.on_device("depthwise_conv2d")?.tensor();
                let bias = depth
                    .bias
                    .map(|bias| bias.on_device("depthwise_conv2d"))
                    .transpose()?;
                let bias = bias.map(|bias| bias.tensor());
                Ok(brisk_cuda::ops::depthwise_gate(x.tensor(), weight, bias)?.into())
            }
            _ => ops::gated_silu(&self.forward(x)?),
        }
    }

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
