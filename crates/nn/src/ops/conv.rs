//! Convolutions over channels-last maps.

use super::accelerated;
use super::glu_mb_conv::DepthwiseWeight;
use super::linear::{bias_gradient, shape_error};
use super::storage::{Reach, cpu_slice, slice, tensor, with_slices};
use super::tangent;
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::conv::{self, ConvShape};
use brisk_kernels::depthwise::{self, DepthwiseShape};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// Convolution of `x` `[batch, height, width, inputs]` with `w` `[outputs, kernel, kernel, inputs]`.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let dims = (x.dims4(), w.dims4());
    let ((batch, height, width, inputs), (outputs, kernel, kernel_width, filter)) = match dims {
        (Ok(x), Ok(w)) => (x, w),
        _ => {
            return Err(shape_error(
                "conv2d",
                x.dims(),
                "a map and filters of four dimensions",
            ));
        }
    };
    let fits = inputs == filter
        && kernel == kernel_width
        && stride > 0
        && height + 2 * padding >= kernel
        && width + 2 * padding >= kernel
        && bias.is_none_or(|b| b.dims() == [outputs]);
    if !fits {
        let expected =
            format!("[batch, height, width, {filter}] of at least the kernel's size {kernel}");
        return Err(shape_error("conv2d", x.dims(), &expected));
    }
    if x.has_tangent() {
        return tangent::affine(x, &|x, biased| {
            let bias = bias.filter(|_| biased).map(Tensor::detach);
            conv2d(x, &w.detach(), bias.as_ref(), stride, padding)
        });
    }
    let shape = ConvShape {
        batch,
        height,
        width,
        inputs,
        outputs,
        kernel,
        stride,
        padding,
    };
    if accelerated::is_any([x, w]) {
        let operands: Vec<&Tensor> = [x, w].into_iter().chain(bias).collect();
        return accelerated::apply(accelerated::Conv(shape), &operands);
    }
    let op = Conv(shape);
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    Ok(match bias {
        Some(bias) => x.apply_op3(&w, &bias.contiguous()?, op)?,
        None => x.apply_op2(&w, op)?,
    })
}

struct Conv(ConvShape);

impl Conv {
    fn run(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let shape = &self.0;
        let dims = (
            shape.batch,
            shape.out_height(),
            shape.out_width(),
            shape.outputs,
        );
        let mut y = unfilled(dims.0 * dims.1 * dims.2 * dims.3);
        conv::forward(shape, x, w, bias, &mut y);
        (CpuStorage::F32(y), dims.into())
    }

    fn backward(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let (x_dims, w_dims) = (x.dims().to_vec(), w.dims().to_vec());
        let (need_x, need_w) = (x.track_op(), w.track_op());
        with_slices!([x, w, grad], {
            let mut gradients = (None, None);
            if need_x {
                let mut dx = unfilled(x.len());
                conv::backward_input(&self.0, w, grad, &mut dx);
                gradients.0 = Some(tensor(dx, &x_dims)?);
            }
            if need_w {
                let mut dw = unfilled(w.len());
                conv::backward_weight(&self.0, x, grad, &mut dw);
                gradients.1 = Some(tensor(dw, &w_dims)?);
            }
            Ok(gradients)
        })
    }
}

/// Depthwise convolution of `x` `[batch, height, width, channels]` with `w`
/// `[kernel, kernel, channels]`, kernel odd, stride 1, zero padding that keeps the size.
pub fn depthwise_conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (batch, height, width, channels) = x
        .dims4()
        .map_err(|_| shape_error("depthwise_conv2d", x.dims(), "four dimensions"))?;
    let kernel = w.dims().first().copied().unwrap_or(0);
    let fits = kernel % 2 == 1
        && w.dims() == [kernel, kernel, channels]
        && bias.is_none_or(|b| b.dims() == [channels]);
    if !fits {
        let expected = format!("[kernel, kernel, {channels}] with an odd kernel");
        return Err(shape_error("depthwise_conv2d", w.dims(), &expected));
    }
    if let Some(x) = x.device() {
        let w = w.on_device("depthwise_conv2d")?.tensor();
        let bias = bias
            .map(|bias| bias.on_device("depthwise_conv2d"))
            .transpose()?;
        let bias = bias.map(|bias| bias.tensor());
        return Ok(brisk_cuda::ops::depthwise(x.tensor(), w, bias, kernel)?.into());
    }
    if x.has_tangent() {
        return tangent::affine(x, &|x, biased| {
            let bias = bias.filter(|_| biased).map(Tensor::detach);
            depthwise_conv2d(x, &w.detach(), bias.as_ref())
        });
    }
    let shape = DepthwiseShape {
        batch,
        height,
        width,
        channels,
        kernel,
    };
    if accelerated::is_any([x, w]) {
        let operands: Vec<&Tensor> = [x, w].into_iter().chain(bias).collect();
        return accelerated::apply(accelerated::Depthwise(shape), &operands);
    }
    let op = Depthwise(shape);
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    Ok(match bias {
        Some(bias) => x.apply_op3(&w, &bias.contiguous()?, op)?,
        None => x.apply_op2(&w, op)?,
    })
}

/// As [`depthwise_conv2d`] of every `stride`-th row and column from the first on, to `[batch, ⌈height/stride⌉,
/// ⌈width/stride⌉, channels]`. Not differentiable.
///
/// # Errors
/// Sizes that do not fit, or a stride of 0.
pub fn depthwise_conv2d_strided(
    x: &Tensor,
    depthwise: DepthwiseWeight,
    stride: usize,
) -> Result<Tensor> {
    let name = "depthwise_conv2d_strided";
    let (w, bias) = (depthwise.weight, depthwise.bias);
    let (batch, height, width, channels) = x
        .dims4()
        .map_err(|_| shape_error(name, x.dims(), "four dimensions"))?;
    let kernel = w.dims().first().copied().unwrap_or(0);
    let fits = kernel % 2 == 1
        && stride > 0
        && w.dims() == [kernel, kernel, channels]
        && bias.is_none_or(|b| b.dims() == [channels]);
    if !fits {
        let expected = format!("[kernel, kernel, {channels}] with an odd kernel, and a stride");
        return Err(shape_error(name, w.dims(), &expected));
    }
    let shape = DepthwiseShape {
        batch,
        height,
        width,
        channels,
        kernel,
    };
    let dims = [
        batch,
        height.div_ceil(stride),
        width.div_ceil(stride),
        channels,
    ];
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let bias = bias.as_ref().map(Tensor::reach).transpose()?;
    with_slices!([x, w], {
        let bias = match &bias {
            Some((storage, layout)) => Some(slice(storage, layout)?),
            None => None,
        };
        let mut y = unfilled(dims.iter().product());
        depthwise::forward_strided(&shape, stride, x, w, bias, &mut y);
        Ok(tensor(y, &dims)?)
    })
}

struct Depthwise(DepthwiseShape);

impl Depthwise {
    fn run(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let shape = &self.0;
        let mut y = unfilled(x.len());
        depthwise::forward(shape, x, w, bias, &mut y);
        (
            CpuStorage::F32(y),
            (shape.batch, shape.height, shape.width, shape.channels).into(),
        )
    }

    fn backward(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let (x_dims, w_dims) = (x.dims().to_vec(), w.dims().to_vec());
        let (need_x, need_w) = (x.track_op(), w.track_op());
        with_slices!([x, w, grad], {
            let mut gradients = (None, None);
            if need_x {
                let mut dx = unfilled(x.len());
                depthwise::backward_input(&self.0, w, grad, &mut dx);
                gradients.0 = Some(tensor(dx, &x_dims)?);
            }
            if need_w {
                gradients.1 = Some(tensor(
                    depthwise::backward_weight(&self.0, x, grad),
                    &w_dims,
                )?);
            }
            Ok(gradients)
        })
    }
}

/// Both convolutions are candle operations of two operands, or three with a bias.
macro_rules! convolution_op {
    ($op:ident, $name:literal) => {
        impl CustomOp2 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                x: &CpuStorage,
                lx: &Layout,
                w: &CpuStorage,
                lw: &Layout,
            ) -> CandleResult<(CpuStorage, Shape)> {
                Ok(self.run(cpu_slice(x, lx)?, cpu_slice(w, lw)?, None))
            }

            fn bwd(
                &self,
                x: &HostTensor,
                w: &HostTensor,
                _: &HostTensor,
                grad: &HostTensor,
            ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
                self.backward(x, w, grad)
            }
        }

        impl CustomOp3 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                x: &CpuStorage,
                lx: &Layout,
                w: &CpuStorage,
                lw: &Layout,
                b: &CpuStorage,
                lb: &Layout,
            ) -> CandleResult<(CpuStorage, Shape)> {
                Ok(self.run(
                    cpu_slice(x, lx)?,
                    cpu_slice(w, lw)?,
                    Some(cpu_slice(b, lb)?),
                ))
            }

            fn bwd(
                &self,
                x: &HostTensor,
                w: &HostTensor,
                bias: &HostTensor,
                _: &HostTensor,
                grad: &HostTensor,
            ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
                let (dx, dw) = self.backward(x, w, grad)?;
                Ok((dx, dw, Some(bias_gradient(grad, bias.elem_count())?)))
            }
        }
    };
}

convolution_op!(Conv, "conv2d");
convolution_op!(Depthwise, "depthwise_conv2d");
