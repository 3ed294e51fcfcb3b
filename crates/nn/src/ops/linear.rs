//! The linear layer.

use super::accelerated;
use super::epilogue::Epilogue;
use super::on_device::DeviceLinear;
use super::storage::{cpu_slice, tensor, with_slices};
use super::tangent;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use brisk_kernels::buffer::unfilled;
use brisk_kernels::linear as kernel;
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
    bail,
};

/// `x wᵀ + b`: `x` is `[.., inputs]`, `w` is `[outputs, inputs]` in f32, bf16 or f16, `b` is
/// `[outputs]`. Gradients need an f32 weight.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some(layer) = DeviceLinear::new(w, bias)? {
        return layer.forward(x, &Epilogue::default());
    }
    if x.has_tangent() {
        return tangent::affine(x, &|x, biased| {
            let bias = bias.filter(|_| biased).map(Tensor::detach);
            linear(x, &w.detach(), bias.as_ref())
        });
    }
    if accelerated::is_any([x, w]) {
        let (_, inputs) = w.dims2()?;
        if x.dims().last() != Some(&inputs) {
            let expected = format!("[.., {inputs}]");
            return Err(shape_error("linear", x.dims(), &expected));
        }
        let operands: Vec<&Tensor> = [x, w].into_iter().chain(bias).collect();
        return accelerated::apply(accelerated::Linear, &operands);
    }
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    Ok(match bias {
        Some(bias) => x.apply_op3(&w, &bias.contiguous()?, Linear)?,
        None => x.apply_op2(&w, Linear)?,
    })
}

struct Linear;

impl Linear {
    fn run(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (w, w_layout): (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, x_layout)?;
        let (outputs, inputs) = w_layout.shape().dims2()?;
        let mut dims = x_layout.dims().to_vec();
        if dims.last() != Some(&inputs) || bias.is_some_and(|b| b.len() != outputs) {
            bail!("linear: input {dims:?} does not fit weight [{outputs}, {inputs}]");
        }
        dims.pop();
        dims.push(outputs);
        let mut y = unfilled(dims.iter().product());
        let Some((start, end)) = w_layout.contiguous_offsets() else {
            bail!("linear: the weight is not contiguous")
        };
        match w {
            CpuStorage::F32(w) => kernel::forward(x, inputs, &w[start..end], outputs, bias, &mut y),
            CpuStorage::BF16(w) => {
                kernel::forward_half(x, inputs, &w[start..end], outputs, bias, &mut y)
            }
            CpuStorage::F16(w) => {
                kernel::forward_half(x, inputs, &w[start..end], outputs, bias, &mut y)
            }
            _ => bail!("linear: the weight must be f32, bf16 or f16"),
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn backward(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        if w.dtype() != DType::F32 {
            bail!("linear: gradients need an f32 weight, not {:?}", w.dtype());
        }
        let (outputs, inputs) = w.dims2()?;
        let (x_dims, w_dims) = (x.dims().to_vec(), w.dims().to_vec());
        let (need_x, need_w) = (x.track_op(), w.track_op());
        with_slices!([x, w, grad], {
            let dx = if need_x {
                let mut dx = unfilled(x.len());
                kernel::backward_input(grad, outputs, w, inputs, &mut dx);
                Some(tensor(dx, &x_dims)?)
            } else {
                None
            };
            let dw = if need_w {
                let mut dw = unfilled(w.len());
                kernel::backward_weight(grad, outputs, x, inputs, &mut dw);
                Some(tensor(dw, &w_dims)?)
            } else {
                None
            };
            Ok((dx, dw))
        })
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.run((x, lx), (w, lw), None)
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

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        self.run((x, lx), (w, lw), Some(cpu_slice(b, lb)?))
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

/// Sums a gradient over all but its last dimension.
pub(crate) fn bias_gradient(grad: &HostTensor, outputs: usize) -> CandleResult<HostTensor> {
    with_slices!([grad], {
        tensor(kernel::backward_bias(grad, outputs), &[outputs])
    })
}

/// An error for a tensor that should have another rank or width.
pub(crate) fn shape_error(what: &str, found: &[usize], expected: &str) -> Error {
    Error::Shape(format!(
        "{what}: found a tensor of shape {found:?}, expected {expected}"
    ))
}
