//! Convolutions that enlarge a map.

use super::{Conv2d, ConvOptions, Linear};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// Kernel, stride and padding of a [`ConvTranspose2d`], as PyTorch counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeOptions {
    /// Side of the kernel.
    pub kernel: usize,
    /// How many result positions a position of the map is apart from the next.
    pub stride: usize,
    /// Rows and columns cut off on every side; less than the kernel.
    pub padding: usize,
    /// Rows and columns added at the end; less than the stride.
    pub output_padding: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// Transposed convolution: every position of `[batch, height, width, inputs]` adds its own square of
/// `kernel` rows and columns to the result, `stride` apart.
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    /// `[inputs, outputs, kernel, kernel]`
    weight: Tensor,
    bias: Option<Tensor>,
    /// Made at load of weights that no optimiser changes.
    frozen: Option<Way>,
    options: ConvTransposeOptions,
}

/// How it is computed.
#[derive(Clone, Debug)]
enum Way {
    /// Squares that touch and do not overlap: a linear map to a square's values, bias included.
    Squares(Linear),
    /// A convolution with the turned kernel, over the map with zeros between its positions.
    Spread(Conv2d),
}

impl ConvTranspose2d {
    /// Reads `weight` `[inputs, outputs, kernel, kernel]` and `bias` `[outputs]`.
    ///
    /// # Errors
    /// Options that contradict each other, or a file that cannot be read.
    pub fn load(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        options: ConvTransposeOptions,
    ) -> Result<Self> {
        let ConvTransposeOptions {
            kernel,
            stride,
            padding,
            output_padding,
            bias,
        } = options;
        if stride == 0 || padding >= kernel || output_padding >= stride {
            return Err(Error::Config(format!(
                "a transposed convolution with a kernel of {kernel}, stride {stride}, padding {padding} and \
                 output padding {output_padding}: the padding must be less than the kernel, the output \
                 padding less than the stride"
            )));
        }
        let shape = [inputs, outputs, kernel, kernel];
        let weight = weights.get("weight", &shape, Init::KaimingUniform)?;
        let bias = match bias {
            true => Some(weights.get("bias", &[outputs], Init::Zeros)?),
            false => None,
        };
        let mut layer = Self {
            weight,
            bias,
            frozen: None,
            options,
        };
        if !layer.weight.track_op() {
            layer.frozen = Some(layer.way()?);
        }
        Ok(layer)
    }

    /// Weight `[kernel·kernel·outputs, inputs]` and bias of the linear map from a position to its square
    /// `[row, column, output]`, where squares touch and do not overlap.
    ///
    /// # Errors
    /// None of a layer that was loaded.
    pub fn squares(&self) -> Result<Option<(Tensor, Option<Tensor>)>> {
        let (inputs, outputs, kernel, _) = self.weight.dims4()?;
        let options = &self.options;
        if options.stride != kernel || options.padding != 0 || options.output_padding != 0 {
            return Ok(None);
        }
        let weight = self.weight.permute((2, 3, 1, 0))?.contiguous()?;
        let weight = weight.reshape((kernel * kernel * outputs, inputs))?;
        let bias = match &self.bias {
            Some(bias) => Some(Tensor::cat(&vec![bias; kernel * kernel], 0)?),
            None => None,
        };
        Ok(Some((weight, bias)))
    }

    fn way(&self) -> Result<Way> {
        if let Some((weight, bias)) = self.squares()? {
            return Ok(Way::Squares(Linear::new(weight, bias)?));
        }
        let kernel = self.options.kernel;
        let turned: Vec<u32> = (0..kernel as u32).rev().collect();
        let turned = Tensor::from_vec(turned, kernel)?;
        let weight = self.weight.index_select(&turned, 2)?;
        let weight = weight.index_select(&turned, 3)?;
        let options = ConvOptions {
            kernel,
            stride: 1,
            padding: 0,
            bias: false,
            exact: true,
            dilation: 1,
        };
        let weight = weight.transpose(0, 1)?.contiguous()?;
        Ok(Way::Spread(Conv2d::new(weight, None, options)?))
    }

    /// `[batch, height, width, inputs]` to `[batch, height', width', outputs]`, where a side of `n` becomes
    /// `(n − 1)·stride − 2·padding + kernel + output_padding`.
    ///
    /// # Errors
    /// A tensor of another shape, or a map of which the padding leaves nothing.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, inputs) = x.dims4()?;
        let (expected, outputs, kernel, _) = self.weight.dims4()?;
        let ConvTransposeOptions {
            stride,
            padding,
            output_padding,
            ..
        } = self.options;
        let full = |side: usize| (side - 1) * stride + kernel + output_padding;
        if inputs != expected || height.min(width) == 0 || full(height.min(width)) <= 2 * padding {
            return Err(Error::Shape(format!(
                "a transposed convolution got {:?}, expected [batch, height, width, {expected}] of which a \
                 padding of {padding} leaves something",
                x.dims()
            )));
        }
        let made;
        let way = match &self.frozen {
            Some(way) => way,
            None => {
                made = self.way()?;
                &made
            }
        };
        match way {
            Way::Squares(linear) => {
                let squares = vec![batch, height, width, kernel, kernel, outputs];
                linear
                    .forward(x)?
                    .reshape(squares)?
                    .transpose(2, 3)?
                    .contiguous()?
                    .reshape((batch, height * kernel, width * kernel, outputs))
            }
            Way::Spread(conv) => {
                let spread = between(&between(x, 1, stride)?, 2, stride)?;
                // Of the zeros around, the padding takes some.
                let before = kernel - 1 - padding;
                let spread = spread.pad_with_zeros(1, before, before + output_padding)?;
                let y =
                    conv.forward(&spread.pad_with_zeros(2, before, before + output_padding)?)?;
                match &self.bias {
                    Some(bias) => y.broadcast_add(bias),
                    None => Ok(y),
                }
            }
        }
    }
}

/// `stride − 1` zeros between neighbours along `dim`.
fn between(x: &Tensor, dim: usize, stride: usize) -> Result<Tensor> {
    let mut sides = x.dims().to_vec();
    let spread = x
        .unsqueeze(dim + 1)?
        .pad_with_zeros(dim + 1, 0, stride - 1)?;
    sides[dim] *= stride;
    let length = sides[dim] + 1 - stride;
    spread.reshape(sides)?.narrow(dim, 0, length)?.contiguous()
}
