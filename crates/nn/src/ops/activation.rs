//! Pointwise activations and gates.

use super::accelerated;
use super::linear::shape_error;
use super::on_device;
use super::storage::{cpu_slice, is_plain, tensor, with_slices};
use super::tangent;
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::activation::{self as kernel, Activation, Gate};
use brisk_kernels::buffer::unfilled;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// x·sigmoid(x).
pub fn silu(x: &Tensor) -> Result<Tensor> {
    pointwise(x, Activation::Silu)
}

/// max(x, 0).
pub fn relu(x: &Tensor) -> Result<Tensor> {
    pointwise(x, Activation::Relu)
}

/// GELU by the tanh formula.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    pointwise(x, Activation::GeluTanh)
}

/// GELU by the error function, as PyTorch has it by default: x·Φ(x).
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    pointwise(x, Activation::GeluErf)
}

pub(super) fn pointwise(x: &Tensor, which: Activation) -> Result<Tensor> {
    match on_device::activation(x, which) {
        Some(y) => y,
        None if x.has_tangent() => tangent::activation(x, which),
        None if x.is_accelerated() => {
            let x = x.on_host("activation")?;
            Ok(match which {
                Activation::Relu => accelerated::relu(x),
                Activation::Silu => x.silu(),
                Activation::GeluTanh => x.gelu(),
                Activation::GeluErf => x.gelu_erf(),
            }?
            .into())
        }
        None => x.contiguous()?.apply_op1(Pointwise(which)),
    }
}

struct Pointwise(Activation);

impl CustomOp1 for Pointwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let mut y = unfilled(x.len());
        kernel::forward(self.0, x, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let dims = x.dims().to_vec();
        with_slices!([x, grad], {
            let mut dx = unfilled(x.len());
            kernel::backward(self.0, x, grad, &mut dx);
            Ok(Some(tensor(dx, &dims)?))
        })
    }
}

/// `a + b` of one shape.
///
/// # Errors
/// Two shapes.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() || !is_plain(a) || !is_plain(b) {
        return a + b;
    }
    let dims = a.dims().to_vec();
    with_slices!([a, b], {
        let mut y = unfilled(a.len());
        kernel::add(a, b, &mut y);
        Ok(tensor(y, &dims)?)
    })
}

/// `[.., 2h]`, values then gates, to `value·silu(gate)` `[.., h]`.
pub fn gated_silu(x: &Tensor) -> Result<Tensor> {
    match x.dims().last() {
        Some(&width) if width > 0 && width.is_multiple_of(2) => {
            if let Some(x) = x.device() {
                return Ok(
                    brisk_cuda::ops::gated(x.tensor(), brisk_cuda::ops::Activation::Silu)?.into(),
                );
            }
            if x.has_tangent() || x.is_accelerated() {
                let (last, half) = (x.rank() - 1, width / 2);
                let gate = silu(&x.narrow(last, half, half)?)?;
                return x.narrow(last, 0, half)? * gate;
            }
            Ok(x.contiguous()?.apply_op1(GatedSilu { half: width / 2 })?)
        }
        _ => Err(shape_error(
            "gated_silu",
            x.dims(),
            "an even last dimension",
        )),
    }
}

struct GatedSilu {
    half: usize,
}

impl CustomOp1 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated_silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let mut dims = layout.dims().to_vec();
        dims.pop();
        dims.push(self.half);
        let mut y = unfilled(x.len() / 2);
        kernel::gated_silu(x, self.half, &mut y);
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let dims = x.dims().to_vec();
        with_slices!([x, grad], {
            let mut dx = unfilled(x.len());
            kernel::gated_silu_backward(x, self.half, grad, &mut dx);
            Ok(Some(tensor(dx, &dims)?))
        })
    }
}

/// `silu(gate)·up`; both have the same shape.
pub fn silu_times(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gated(Gate::Silu, "silu_times", gate, up)
}

/// `gelu_tanh(gate)·up`; both have the same shape.
pub fn gated_gelu_tanh(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gated(Gate::GeluTanh, "gated_gelu_tanh", gate, up)
}

/// `[.., 2h]`, gates then values, to `gelu_tanh(gate)·value` `[.., h]`.
///
/// # Errors
/// An odd last dimension.
pub fn joined_gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let half = match x.dims().last() {
        Some(&width) if width > 0 && width.is_multiple_of(2) => width / 2,
        _ => {
            let expected = "an even last dimension";
            return Err(shape_error("joined_gelu_tanh", x.dims(), expected));
        }
    };
    if let Some(x) = x.device() {
        let which = brisk_cuda::ops::Activation::GeluTanh;
        return Ok(brisk_cuda::ops::gated(x.tensor(), which)?.into());
    }
    let last = x.rank() - 1;
    let part = |first: usize| x.narrow(last, first, half);
    gated_gelu_tanh(&part(0)?, &part(half)?)
}

fn gated(kind: Gate, name: &'static str, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        return Err(shape_error(name, up.dims(), &format!("{:?}", gate.dims())));
    }
    if let Some(gate) = gate.device() {
        let which = match kind {
            Gate::Silu => brisk_cuda::ops::Activation::Silu,
            Gate::GeluTanh => brisk_cuda::ops::Activation::GeluTanh,
        };
        let up = up.on_device(name)?.tensor();
        return Ok(brisk_cuda::ops::gated_pair(gate.tensor(), up, which)?.into());
    }
    if [gate, up]
        .iter()
        .any(|x| x.has_tangent() || x.is_accelerated())
    {
        let which = match kind {
            Gate::Silu => Activation::Silu,
            Gate::GeluTanh => Activation::GeluTanh,
        };
        return pointwise(gate, which)? * up;
    }
    gate.contiguous()?
        .apply_op2(&up.contiguous()?, Gated { kind, name })
}

struct Gated {
    kind: Gate,
    name: &'static str,
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        lg: &Layout,
        up: &CpuStorage,
        lu: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (gate, up) = (cpu_slice(gate, lg)?, cpu_slice(up, lu)?);
        let mut y = unfilled(gate.len());
        kernel::gated(self.kind, gate, up, &mut y);
        Ok((CpuStorage::F32(y), lg.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &HostTensor,
        up: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let dims = gate.dims().to_vec();
        with_slices!([gate, up, grad], {
            let (mut dgate, mut dup) = (unfilled(gate.len()), unfilled(gate.len()));
            kernel::gated_backward_gate(self.kind, gate, up, grad, &mut dgate);
            kernel::gated(self.kind, gate, grad, &mut dup);
            Ok((Some(tensor(dgate, &dims)?), Some(tensor(dup, &dims)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_fused_gate_equals_its_parts_forward_and_backward() {
        let make = |shift: f32| {
            let values: Vec<f32> = (0..30)
                .map(|i| (i as f32 * 0.7 + shift).sin() * 3.0)
                .collect();
            variable(values, &[2, 15])
        };
        let (gate, up, weights) = (make(0.0), make(1.0), make(2.0));
        let fused = silu_times(&gate, &up).unwrap();
        let apart = (silu(&gate).unwrap() * &up).unwrap();
        let gradients = |y: &Tensor| {
            let loss = (y * &weights).unwrap().sum_all().unwrap();
            let store = loss.host().unwrap().backward().unwrap();
            [&gate, &up].map(|x| values(&store.get(x.on_host("test").unwrap()).unwrap().into()))
        };
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&values(&fused), &values(&apart)));
        for (a, b) in gradients(&fused).iter().zip(&gradients(&apart)) {
            assert!(close(a, b));
        }
        assert!(silu_times(&gate, &up.narrow(0, 0, 1).unwrap()).is_err());
    }
}
