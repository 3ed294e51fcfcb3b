//! Operations stated by candle's own, for what candle has on a card.
//!
//! A [`Statement`] is a function of tensors. What it makes on its way is dropped and made anew when its gradient is
//! asked for, so that a training keeps no more than it does on the CPU.

mod attention;
mod conv;
mod kept;
mod linear;
mod norm;
mod products;
mod rotary;

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result as CandleResult,
    Shape, Storage, Tensor as HostTensor, Var, bail,
};

use crate::error::Result;
use crate::tensor::{Tensor, meeting_place, moved};

pub(super) use attention::{LinearAttention, MaskedAttention};
pub(super) use conv::{Conv, Depthwise};
pub(super) use linear::Linear;
pub(super) use norm::{GateResidual, GroupNorm, LayerNormModulate, RmsNorm};
pub(super) use rotary::Rotary;

/// Whether any of these is candle's on a card.
pub(super) fn is_any<'a>(operands: impl IntoIterator<Item = &'a Tensor>) -> bool {
    operands.into_iter().any(Tensor::is_accelerated)
}

/// max(x, 0), whose slope at zero is zero, as the kernel's is and candle's own is not.
pub(super) fn relu(x: &HostTensor) -> CandleResult<HostTensor> {
    let above = x.detach().gt(0.0f32)?.to_dtype(x.dtype())?;
    x * above
}

/// An operation stated by candle's.
pub(super) trait Statement: Send + Sync + 'static {
    /// What errors call it.
    fn name(&self) -> &'static str;

    /// Its value, of operands on one device.
    fn forward(&self, operands: &[HostTensor]) -> CandleResult<HostTensor>;

    /// The gradient of every operand for which one is `needed`, from that of the value; candle's own unless stated.
    fn backward(
        &self,
        operands: &[HostTensor],
        needed: &[bool],
        gradient: &HostTensor,
    ) -> CandleResult<Vec<Option<HostTensor>>> {
        let mut variables: Vec<Option<Var>> = Vec::with_capacity(operands.len());
        let mut inputs = Vec::with_capacity(operands.len());
        for (operand, needed) in operands.iter().zip(needed) {
            let variable = match needed {
                true => Some(Var::from_tensor(operand)?),
                false => None,
            };
            let input = variable.as_ref().map(|variable| variable.as_tensor());
            inputs.push(input.unwrap_or(operand).clone());
            variables.push(variable);
        }
        let value = self.forward(&inputs)?;
        let mut store = (value * gradient)?.sum_all()?.backward()?;
        Ok(variables
            .iter()
            .map(|variable| store.remove(variable.as_ref()?.as_tensor()))
            .collect())
    }
}

/// The value of a statement of one to three operands, brought together on the card, with its gradients.
///
/// # Errors
/// What candle cannot do.
pub(super) fn apply(statement: impl Statement, operands: &[&Tensor]) -> Result<Tensor> {
    let name = statement.name();
    let operands: Vec<&HostTensor> = operands
        .iter()
        .map(|tensor| tensor.on_host(name))
        .collect::<Result<_>>()?;
    let device = meeting_place(operands.iter().copied());
    let operands: Vec<HostTensor> = operands
        .into_iter()
        .map(|tensor| moved(tensor, &device)?.contiguous())
        .collect::<CandleResult<_>>()?;
    let detached: Vec<HostTensor> = operands.iter().map(HostTensor::detach).collect();
    let value = statement.forward(&detached)?;
    if operands.iter().all(|tensor| !tensor.track_op()) {
        return Ok(value.into());
    }
    let value = value.contiguous()?;
    let (storage, layout) = value.storage_and_layout();
    let stated = Stated {
        statement,
        shape: value.shape().clone(),
        value: Mutex::new(Some(storage.try_clone(layout)?)),
    };
    let value = match &operands[..] {
        [a] => a.apply_op1(stated)?,
        [a, b] => a.apply_op2(b, stated)?,
        [a, b, c] => a.apply_op3(b, c, stated)?,
        _ => Err(candle_core::Error::Msg(format!(
            "{name}: one to three operands, not {}",
            operands.len()
        )))?,
    };
    Ok(value.into())
}

/// A statement whose value is there already, as an operation of candle's graph.
struct Stated<S> {
    statement: S,
    shape: Shape,
    value: Mutex<Option<Storage>>,
}

impl<S: Statement> Stated<S> {
    fn take(&self) -> CandleResult<Storage> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        match value.take() {
            Some(storage) => Ok(storage),
            None => bail!("{}: its value was taken before", self.statement.name()),
        }
    }

    fn on_cpu(&self) -> CandleResult<(CpuStorage, Shape)> {
        match self.take()? {
            Storage::Cpu(storage) => Ok((storage, self.shape.clone())),
            _ => bail!("{}: its value lies on a card", self.statement.name()),
        }
    }

    fn on_card(&self) -> CandleResult<(CudaStorage, Shape)> {
        match self.take()? {
            Storage::Cuda(storage) => Ok((storage, self.shape.clone())),
            _ => bail!(
                "{}: its value does not lie on a card",
                self.statement.name()
            ),
        }
    }

    fn gradients<const N: usize>(
        &self,
        operands: [&HostTensor; N],
        gradient: &HostTensor,
    ) -> CandleResult<[Option<HostTensor>; N]> {
        let needed = operands.map(HostTensor::track_op);
        let detached = operands.map(HostTensor::detach);
        let gradients =
            self.statement
                .backward(&detached, &needed, &gradient.detach().contiguous()?)?;
        let mut gradients = gradients.into_iter();
        Ok(std::array::from_fn(|_| gradients.next().flatten()))
    }
}

impl<S: Statement> CustomOp1 for Stated<S> {
    fn name(&self) -> &'static str {
        self.statement.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        self.on_card()
    }

    fn bwd(
        &self,
        a: &HostTensor,
        _: &HostTensor,
        gradient: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let [a] = self.gradients([a], gradient)?;
        Ok(a)
    }
}

impl<S: Statement> CustomOp2 for Stated<S> {
    fn name(&self) -> &'static str {
        self.statement.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        self.on_card()
    }

    fn bwd(
        &self,
        a: &HostTensor,
        b: &HostTensor,
        _: &HostTensor,
        gradient: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let [a, b] = self.gradients([a, b], gradient)?;
        Ok((a, b))
    }
}

impl<S: Statement> CustomOp3 for Stated<S> {
    fn name(&self) -> &'static str {
        self.statement.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        self.on_card()
    }

    fn bwd(
        &self,
        a: &HostTensor,
        b: &HostTensor,
        c: &HostTensor,
        _: &HostTensor,
        gradient: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let [a, b, c] = self.gradients([a, b, c], gradient)?;
        Ok((a, b, c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{self, AttentionOptions, RotaryAngles};
    use crate::tensor::variable;
    use brisk_kernels::attention::AttentionShape;
    use brisk_kernels::conv::ConvShape;
    use brisk_kernels::depthwise::DepthwiseShape;
    use brisk_kernels::linear_attention::LinearAttentionShape;
    use brisk_kernels::pointwise::group_norm::GroupNormShape;

    fn made(shape: &[usize], seed: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|i| ((i as f32 + 31.0 * seed) * 0.73).sin() * 1.3);
        variable(values.collect(), shape)
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A statement gives what the kernel gives, and so do its gradients.
    fn agree(statement: impl Statement, operands: &[&Tensor], kernel: Tensor) {
        let name = statement.name();
        let stated = apply(statement, operands).unwrap();
        assert_eq!(stated.dims(), kernel.dims(), "{name}");
        let weights = made(kernel.dims(), 9.0).detach();
        let results = [stated, kernel].map(|y| {
            let loss = (&y * &weights).unwrap().sum_all().unwrap();
            let store = loss.host().unwrap().backward().unwrap();
            let mut results = vec![values(&y)];
            for operand in operands {
                let gradient = store.get(operand.on_host("test").unwrap()).unwrap();
                results.push(values(&gradient.into()));
            }
            results
        });
        let [stated, kernel] = results;
        for (at, (stated, kernel)) in stated.iter().zip(&kernel).enumerate() {
            for (a, b) in stated.iter().zip(kernel) {
                let near = (a - b).abs() < 2e-4 * (1.0 + b.abs());
                assert!(near, "{name}, result {at}: {a} {b}");
            }
        }
    }

    #[test]
    fn convolutions_are_the_kernels() {
        let w = |kernel: usize| made(&[5, kernel, kernel, 3], 1.0);
        let bias = made(&[5], 2.0);
        for (kernel, stride, padding) in [
            (3, 1, 1),
            (3, 2, 1),
            (1, 1, 0),
            (4, 2, 1),
            (2, 2, 0),
            (3, 1, 0),
        ] {
            let (x, w) = (made(&[2, 7, 6, 3], 0.0), w(kernel));
            let shape = ConvShape {
                batch: 2,
                height: 7,
                width: 6,
                inputs: 3,
                outputs: 5,
                kernel,
                stride,
                padding,
            };
            let y = ops::conv2d(&x, &w, Some(&bias), stride, padding).unwrap();
            agree(Conv(shape), &[&x, &w, &bias], y);
        }
        let (x, w, bias) = (
            made(&[2, 5, 4, 3], 0.0),
            made(&[3, 3, 3], 1.0),
            made(&[3], 2.0),
        );
        let shape = DepthwiseShape {
            batch: 2,
            height: 5,
            width: 4,
            channels: 3,
            kernel: 3,
        };
        let y = ops::depthwise_conv2d(&x, &w, Some(&bias)).unwrap();
        agree(Depthwise(shape), &[&x, &w, &bias], y);
    }

    #[test]
    fn wide_ones_are_the_kernels() {
        let (x, w, bias) = (made(&[2, 3, 6], 0.0), made(&[4, 6], 1.0), made(&[4], 2.0));
        let y = ops::linear(&x, &w, Some(&bias)).unwrap();
        agree(Linear, &[&x, &w, &bias], y);

        let (x, w) = (made(&[1, 17, 16, 2], 0.0), made(&[3, 3, 2], 1.0));
        let shape = DepthwiseShape {
            batch: 1,
            height: 17,
            width: 16,
            channels: 2,
            kernel: 3,
        };
        let y = ops::depthwise_conv2d(&x, &w, None).unwrap();
        agree(Depthwise(shape), &[&x, &w], y);

        let [q, k, v] = [0.0, 1.0, 2.0].map(|seed| made(&[1, 3, 520], seed));
        let shape = LinearAttentionShape {
            batch: 1,
            tokens: 3,
            heads: 2,
            dim: 260,
            eps: 1e-3,
        };
        let y = ops::linear_attention(&q, &k, &v, 2, 1e-3).unwrap();
        agree(LinearAttention(shape), &[&q, &k, &v], y);
        // As many rows as are summed in two steps.
        let (x, weight) = (made(&[4096, 2], 0.0), made(&[2], 1.0));
        let y = ops::rms_norm(&x, &weight, None, 1e-5).unwrap();
        agree(RmsNorm(1e-5), &[&x, &weight], y);
    }

    #[test]
    fn norms_are_the_kernels() {
        let x = made(&[2, 6, 8], 0.0);
        let (weight, bias) = (made(&[8], 1.0), made(&[8], 2.0));
        let y = ops::rms_norm(&x, &weight, Some(&bias), 1e-5).unwrap();
        agree(RmsNorm(1e-5), &[&x, &weight, &bias], y);
        let (shift, scale) = (made(&[2, 8], 3.0), made(&[2, 8], 4.0));
        let y = ops::layer_norm_modulate(&x, &shift, &scale, 1e-6).unwrap();
        agree(LayerNormModulate(1e-6), &[&x, &shift, &scale], y);
        let branch = made(&[2, 6, 8], 5.0);
        let y = ops::gate_residual(&x, &shift, &branch).unwrap();
        agree(GateResidual, &[&x, &shift, &branch], y);
        let shape = GroupNormShape {
            batch: 2,
            pixels: 6,
            channels: 8,
            groups: 4,
            eps: 1e-5,
        };
        let y = ops::group_norm(&x, 4, &weight, &bias, 1e-5).unwrap();
        agree(GroupNorm(shape), &[&x, &weight, &bias], y);
    }

    #[test]
    fn attentions_are_the_kernels() {
        let [q, k, v] = [0.0, 1.0, 2.0].map(|seed| made(&[2, 5, 12], seed));
        let shape = LinearAttentionShape {
            batch: 2,
            tokens: 5,
            heads: 3,
            dim: 4,
            eps: 1e-3,
        };
        let y = ops::linear_attention(&q, &k, &v, 3, 1e-3).unwrap();
        agree(LinearAttention(shape), &[&q, &k, &v], y);

        let q = made(&[2, 5, 12], 0.0);
        let masks = [
            (None, None, None, None),
            (Some(2), None, None, Some(3.0)),
            (Some(2), Some(3), Some(vec![7, 4]), None),
            (None, None, Some(vec![0, 6]), None),
        ];
        let heads = [4, 2].into_iter();
        let cases = heads.flat_map(|groups| masks.iter().map(move |mask| (groups, mask.clone())));
        for (groups, (causal, sliding_window, key_lengths, softcap)) in cases {
            let [k, v] = [1.0, 2.0].map(|seed| made(&[2, 7, 3 * groups], seed));
            let options = AttentionOptions {
                key_value_heads: groups,
                causal,
                sliding_window,
                key_lengths,
                softcap,
                ..AttentionOptions::new(4, 3)
            };
            let shape = AttentionShape {
                batch: 2,
                queries: 5,
                keys: 7,
                heads: 4,
                key_value_heads: groups,
                dim: 3,
                scale: options.scale,
                softcap,
                causal_offset: causal,
                window: sliding_window,
                key_mask: options.mask(2, 7).unwrap(),
            };
            let y = ops::attention(&q, &k, &v, &options).unwrap();
            agree(MaskedAttention(shape), &[&q, &k, &v], y);
        }
    }

    #[test]
    fn rotations_are_the_kernels() {
        let x = made(&[2, 4, 16], 0.0);
        let halves = RotaryAngles::new(6, 100.0, &[0, 1, 5, 2]);
        let axes = RotaryAngles::by_axes(
            [4, 4],
            100.0,
            &[[0.0, 1.0], [2.0, 3.0], [1.0, 7.0], [4.0, 4.0]],
        );
        for angles in [halves, axes] {
            let y = ops::rotary_at(&x, 2, &angles).unwrap();
            agree(angles.statement(2), &[&x], y);
        }
    }
}
