//! Convolutions over clips.

use super::{Conv2d, ConvOptions};
use crate::error::{Error, Result};
use crate::ops::{Epilogue, Residual, can_pack, causal_windows, repeat_edges, without_border};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// What stands around a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipPadding {
    /// Zeros on all sides, so that a stride of one keeps the size.
    Zeros,
    /// The outermost values of a frame around it, and the first frame before the clip: no frame sees a
    /// later one (HunyuanVideo's causal convolution).
    Causal,
}

/// Kernel, strides, padding and bias of a [`Conv3d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv3dOptions {
    /// Side of the kernel in time and space; odd.
    pub kernel: usize,
    /// Steps between results in time, and in rows and columns.
    pub stride: [usize; 2],
    /// What stands around the clip.
    pub padding: ClipPadding,
    /// Whether a bias is added.
    pub bias: bool,
}

/// Convolution with a cubic kernel over `[batch, frames, height, width, channels]`: a [`Conv2d`] a step of
/// the kernel in time, over all frames at once, each added to the last in the same pass.
#[derive(Clone, Debug)]
pub struct Conv3d {
    taps: Vec<Conv2d>,
    /// A causal one, where gradients are computed of it or its channels are few.
    at_once: Option<AtOnce>,
    options: Conv3dOptions,
    /// Rows and columns on each side of a tap's result that nobody wants.
    spare: usize,
}

/// Inputs up to which a pass over all taps' channels side by side costs less than a pass a tap.
const FEW: usize = 64;

/// A causal convolution as one over pictures: one pass to compute and to differentiate in place of one a tap.
#[derive(Clone, Debug)]
struct AtOnce {
    /// Over the channels of all taps, side by side.
    beside: Conv2d,
    /// Of a clip of one frame, which all taps see: their sum.
    alone: Conv2d,
}

impl Conv3d {
    /// Reads `weight` `[outputs, inputs, kernel, kernel, kernel]`, time first, and `bias` `[outputs]`.
    ///
    /// # Errors
    /// A kernel of an even side, a stride of 0, or a file that cannot be read.
    pub fn load(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        options: Conv3dOptions,
    ) -> Result<Self> {
        let Conv3dOptions {
            kernel,
            stride: [time, space],
            padding,
            bias,
        } = options;
        if kernel % 2 == 0 || time == 0 || space == 0 {
            return Err(Error::Config(format!(
                "a convolution over clips with a kernel of {kernel} and strides of {time} and {space}: the \
                 kernel must be odd, the strides at least 1"
            )));
        }
        let shape = [outputs, inputs, kernel, kernel, kernel];
        let weight = weights.get("weight", &shape, Init::KaimingUniform)?;
        let bias = match bias {
            true => Some(weights.get("bias", &[outputs], Init::Zeros)?),
            false => None,
        };
        // A border that was put there already has zeros around it, for results that are cut off: 3x3 kernels over
        // zeros have the fast way.
        let spare = match padding {
            ClipPadding::Causal if space == 1 && kernel == 3 => 1,
            _ => 0,
        };
        let plane = ConvOptions {
            kernel,
            stride: space,
            padding: match padding {
                ClipPadding::Zeros => kernel / 2,
                ClipPadding::Causal => spare,
            },
            bias: false,
            exact: weights.is_exact(),
            dilation: 1,
        };
        let at_once = match padding {
            ClipPadding::Causal if inputs <= FEW || !can_pack(&weight, bias.as_ref()) => {
                let beside = weight.permute(vec![0, 2, 1, 3, 4])?;
                let beside = beside.reshape((outputs, kernel * inputs, kernel, kernel))?;
                let all = weight.mean(2)?.affine(kernel as f64, 0.0)?;
                Some(AtOnce {
                    beside: Conv2d::new(beside, bias.clone(), plane)?,
                    alone: Conv2d::new(all, bias.clone(), plane)?,
                })
            }
            _ => None,
        };
        let taps = (0..kernel).map(|step| {
            let weight = weight.narrow(2, step, 1)?.squeeze(2)?;
            // The last one: what was summed before it has no bias yet.
            let bias = bias.clone().filter(|_| step + 1 == kernel);
            Conv2d::new(weight, bias, plane)
        });
        Ok(Self {
            taps: taps.collect::<Result<_>>()?,
            at_once,
            options,
            spare,
        })
    }

    /// `[batch, frames, height, width, inputs]` to `[batch, frames', height', width', outputs]`.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let &[batch, frames, ..] = x.dims() else {
            return Err(clip_error(x));
        };
        if x.rank() != 5 || x.elem_count() == 0 {
            return Err(clip_error(x));
        }
        let Conv3dOptions {
            kernel,
            stride: [stride, _],
            padding,
            ..
        } = self.options;
        if let Some(at_once) = &self.at_once
            && !(x.has_tangent() || x.is_accelerated())
        {
            let (conv, taps) = match frames {
                1 => (&at_once.alone, 1),
                _ => (&at_once.beside, kernel),
            };
            let y = conv.forward(&causal_windows(x, taps, stride, kernel / 2)?)?;
            let y = match self.spare {
                0 => y,
                spare => without_border(&y, spare)?,
            };
            let (results, height, width, channels) = y.dims4()?;
            return y.reshape(vec![batch, results / batch, height, width, channels]);
        }
        let x = match padding {
            ClipPadding::Zeros => x.pad_with_zeros(1, kernel / 2, kernel / 2)?,
            ClipPadding::Causal => {
                let x = repeat_edges(x, 2, kernel / 2, kernel / 2)?;
                let x = repeat_edges(&x, 3, kernel / 2, kernel / 2)?;
                repeat_edges(&x, 1, kernel - 1, 0)?
            }
        };
        let count = (frames - 1) / stride + 1;
        let sum = self.sum(&|step| {
            let seen = every(&x, step, stride, count)?;
            let &[_, _, height, width, channels] = seen.dims() else {
                return Err(clip_error(&seen));
            };
            seen.reshape((batch * count, height, width, channels))
        })?;
        let (_, height, width, channels) = sum.dims4()?;
        sum.reshape(vec![batch, count, height, width, channels])
    }

    /// One frame of the result from as many as the kernel is long, each `[batch, height, width, inputs]` with the
    /// `kernel / 2` rows and columns on every side that [`Self::forward`] would put there.
    ///
    /// # Errors
    /// Another number of frames, or tensors of another shape.
    pub fn forward_frame(&self, frames: &[Tensor]) -> Result<Tensor> {
        if frames.len() != self.taps.len() {
            return Err(Error::Shape(format!(
                "{} frames for a kernel over {}",
                frames.len(),
                self.taps.len()
            )));
        }
        self.sum(&|step| Ok(frames[step].clone()))
    }

    /// The sum of what the taps make of `seen`, by their numbers.
    fn sum(&self, seen: &dyn Fn(usize) -> Result<Tensor>) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (step, tap) in self.taps.iter().enumerate() {
            let steps = Epilogue {
                residual: sum.as_ref().map(Residual::Same),
                ..Epilogue::default()
            };
            sum = Some(tap.forward_with(&seen(step)?, &steps)?);
        }
        let sum = sum.ok_or_else(|| Error::Config("a kernel without taps".into()))?;
        if self.spare == 0 {
            return Ok(sum);
        }
        let (_, height, width, _) = sum.dims4()?;
        let inside = |size: usize| size.saturating_sub(2 * self.spare);
        sum.narrow(1, self.spare, inside(height))?
            .narrow(2, self.spare, inside(width))?
            .contiguous()
    }
}

fn clip_error(x: &Tensor) -> Error {
    Error::Shape(format!(
        "a convolution over clips got {:?}, expected [batch, frames, height, width, channels]",
        x.dims()
    ))
}

/// `count` frames from `start`, `stride` apart.
fn every(x: &Tensor, start: usize, stride: usize, count: usize) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(1, start, count)?.contiguous();
    }
    let places: Vec<u32> = (0..count).map(|i| (start + i * stride) as u32).collect();
    x.index_select(&Tensor::from_vec(places, count)?, 1)
}
