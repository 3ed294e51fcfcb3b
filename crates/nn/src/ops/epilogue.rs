//! What follows a layer, in the same pass over memory where nothing is to be differentiated.

use super::storage::{Reach, slice};
use super::{gate_residual, gelu_erf, gelu_tanh, relu, rms_norm, shortcut, silu};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::epilogue::{
    Epilogue as Kernel, Gate, Norm as KernelNorm, Residual as KernelResidual,
};
use brisk_kernels::shortcut::Shortcut;
use candle_core::{Layout, Storage};
use std::ops::Deref;

pub use brisk_kernels::activation::Activation;
pub use brisk_kernels::shortcut::ShortcutKind;

/// The steps after a layer, in this order: activation, RMS norm, addition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Applied to every value.
    pub activation: Option<Activation>,
    /// Applied over the last dimension.
    pub norm: Option<Norm<'a>>,
    /// Added at the end.
    pub residual: Option<Residual<'a>>,
}

/// `x / sqrt(mean(x²) + eps)·weight + bias`, vectors `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor of every channel.
    pub weight: &'a Tensor,
    /// Addend of every channel.
    pub bias: Option<&'a Tensor>,
    /// Whether the factor is 1 + weight, as a trainable Gemma norm has it.
    pub add_one: bool,
    /// Added to the mean.
    pub eps: f64,
}

impl Norm<'_> {
    /// The norm alone, differentiable.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.add_one {
            return rms_norm(x, &(self.weight + 1.0)?, self.bias, self.eps);
        }
        rms_norm(x, self.weight, self.bias, self.eps)
    }
}

/// What is added to a layer's result.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// A tensor of the result's shape.
    Same(&'a Tensor),
    /// A tensor of the result's shape, after the result was multiplied with a gate, `[batch, channels]`.
    Gated(&'a Tensor, &'a Tensor),
    /// A map of half or twice the result's size, as [`shortcut`] sees it.
    Shortcut(&'a Tensor, ShortcutKind),
}

impl<'a> Epilogue<'a> {
    /// An activation alone.
    pub fn activation(activation: Activation) -> Self {
        Self {
            activation: Some(activation),
            ..Self::default()
        }
    }

    fn tensors(&self) -> [Option<&'a Tensor>; 4] {
        let (residual, gate) = match self.residual {
            Some(Residual::Same(x) | Residual::Shortcut(x, _)) => (Some(x), None),
            Some(Residual::Gated(x, gate)) => (Some(x), Some(gate)),
            None => (None, None),
        };
        [
            self.norm.map(|norm| norm.weight),
            self.norm.and_then(|norm| norm.bias),
            residual,
            gate,
        ]
    }

    /// Whether the steps can run inside the layer: nothing is to be differentiated, forward or backward.
    pub(crate) fn fuses(&self, x: &Tensor) -> bool {
        let plain = self.norm.is_none_or(|norm| !norm.add_one);
        let fixed = |x: &Tensor| !x.track_op() && !x.has_tangent();
        plain && fixed(x) && self.tensors().into_iter().flatten().all(fixed)
    }

    /// The steps one by one, differentiable.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn apply(&self, mut y: Tensor) -> Result<Tensor> {
        if let Some(y) = y.device() {
            return self.on_device(None, |steps| match steps.are_none() {
                true => Ok(y.tensor().clone()),
                false => brisk_cuda::ops::steps(y.tensor(), steps),
            });
        }
        y = match self.activation {
            Some(Activation::Relu) => relu(&y)?,
            Some(Activation::Silu) => silu(&y)?,
            Some(Activation::GeluTanh) => gelu_tanh(&y)?,
            Some(Activation::GeluErf) => gelu_erf(&y)?,
            None => y,
        };
        if let Some(norm) = self.norm {
            y = norm.forward(&y)?;
        }
        Ok(match self.residual {
            None => y,
            Some(Residual::Same(x)) => (y + x)?,
            Some(Residual::Gated(x, gate)) => {
                let (batch, channels) = gate.dims2()?;
                let tokens = |t: &Tensor| t.reshape((batch, (), channels));
                gate_residual(&tokens(x)?, gate, &tokens(&y)?)?.reshape(x.shape())?
            }
            Some(Residual::Shortcut(x, kind)) => {
                let channels = y.dims().last().copied().unwrap_or(0);
                (y + shortcut(x, kind, channels)?)?
            }
        })
    }

    /// Calls `work` with the kernels' form of the steps, `bias` first. `dims` is the result's shape.
    pub(crate) fn with_kernel<R>(
        &self,
        bias: Option<&[f32]>,
        dims: &[usize],
        work: impl FnOnce(&Kernel) -> R,
    ) -> Result<R> {
        self.check(bias, dims)?;
        let tensors = self.tensors();
        let [a, b, c, d] = tensors.map(hold);
        let held = [a?, b?, c?, d?];
        let [a, b, c, d] = held.each_ref().map(guard);
        let (a, b, c, d) = (a?, b?, c?, d?);
        let [weight, shift, residual, gate] = [
            values(a.as_ref())?,
            values(b.as_ref())?,
            values(c.as_ref())?,
            values(d.as_ref())?,
        ];
        let norm = self.norm.zip(weight).map(|(norm, weight)| KernelNorm {
            weight,
            bias: shift,
            eps: norm.eps as f32,
        });
        let residual = match (self.residual, residual) {
            (Some(Residual::Same(_) | Residual::Gated(..)), Some(x)) => {
                Some(KernelResidual::Rows(x))
            }
            (Some(Residual::Shortcut(map, kind)), Some(x)) => {
                Some(KernelResidual::Shortcut(seen(x, map.dims(), kind)))
            }
            _ => None,
        };
        Ok(work(&Kernel {
            bias,
            activation: self.activation,
            norm,
            gate: gate.map(|vectors| Gate {
                vectors,
                rows: dims.iter().product::<usize>() / vectors.len().max(1),
            }),
            residual,
            first_row: 0,
        }))
    }

    fn check(&self, bias: Option<&[f32]>, dims: &[usize]) -> Result<()> {
        let channels = dims.last().copied().unwrap_or(0);
        let vectors = self.norm.iter().flat_map(|n| [Some(n.weight), n.bias]);
        let vectors_fit = vectors.flatten().all(|v| v.dims() == [channels])
            && bias.is_none_or(|bias| bias.len() == channels);
        let residual_fits = match self.residual {
            None => true,
            Some(Residual::Same(x)) => x.dims() == dims,
            Some(Residual::Gated(x, gate)) => {
                x.dims() == dims && dims.len() > 1 && gate.dims() == [dims[0], channels]
            }
            Some(Residual::Shortcut(x, kind)) => {
                let scaled = match (kind, x.dims()) {
                    (ShortcutKind::Up, [b, h, w, _]) => [*b, 2 * h, 2 * w, channels],
                    (ShortcutKind::Down, [b, h, w, _]) => [*b, h / 2, w / 2, channels],
                    _ => [0; 4],
                };
                scaled == dims && channels > 0 && seen(&[], x.dims(), kind).fits(channels)
            }
        };
        if vectors_fit && residual_fits {
            return Ok(());
        }
        let expected = format!(
            "vectors of {channels} channels and a residual that fits, not {:?}",
            self.tensors().map(|t| t.map(|t| t.dims().to_vec()))
        );
        Err(super::linear::shape_error("epilogue", dims, &expected))
    }
}

fn seen<'a>(x: &'a [f32], dims: &[usize], kind: ShortcutKind) -> Shortcut<'a> {
    Shortcut {
        x,
        height: dims[1],
        width: dims[2],
        channels: dims[3],
        kind,
    }
}

fn hold(tensor: Option<&Tensor>) -> Result<Option<Tensor>> {
    tensor.map(Tensor::contiguous).transpose()
}

fn guard(tensor: &Option<Tensor>) -> Result<Option<(impl Deref<Target = Storage>, &Layout)>> {
    tensor.as_ref().map(Tensor::reach).transpose()
}

fn values<'a>(
    guard: Option<&'a (impl Deref<Target = Storage>, &Layout)>,
) -> Result<Option<&'a [f32]>> {
    Ok(guard
        .map(|(storage, layout)| slice(storage, layout))
        .transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, ConvOptions, Linear};
    use candle_core::{Device, Tensor as HostTensor};

    fn random(dims: &[usize]) -> Tensor {
        HostTensor::randn(0.0f32, 1.0, dims, &Device::Cpu)
            .unwrap()
            .into()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        let sum = |t: Tensor| {
            t.sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        (sum((a - b).unwrap()) / sum(b.clone())).sqrt()
    }

    #[test]
    fn steps_inside_a_layer_equal_steps_after_it() {
        let (weight, shift) = (random(&[40]), random(&[40]));
        let norm = Norm {
            weight: &weight,
            bias: Some(&shift),
            add_one: false,
            eps: 1e-5,
        };
        let linear = Linear::new(random(&[40, 24]), Some(random(&[40]))).unwrap();
        let wide = Conv2d::new(
            random(&[40, 40, 3, 3]),
            Some(random(&[40])),
            ConvOptions::SAME_3X3,
        )
        .unwrap();
        let (x, map) = (random(&[2, 6, 10, 24]), random(&[2, 6, 10, 40]));
        let (same, small, large) = (
            random(&[2, 6, 10, 40]),
            random(&[2, 3, 5, 80]),
            random(&[2, 12, 20, 20]),
        );
        let gate = random(&[2, 40]);
        let residuals = [
            None,
            Some(Residual::Same(&same)),
            Some(Residual::Gated(&same, &gate)),
            Some(Residual::Shortcut(&small, ShortcutKind::Up)),
            Some(Residual::Shortcut(&large, ShortcutKind::Down)),
        ];
        for residual in residuals {
            let steps = Epilogue {
                activation: Some(Activation::Silu),
                norm: Some(norm),
                residual,
            };
            let want = steps.apply(linear.forward(&x).unwrap()).unwrap();
            assert!(distance(&linear.forward_with(&x, &steps).unwrap(), &want) < 1e-6);
            let want = steps.apply(wide.forward(&map).unwrap()).unwrap();
            assert!(distance(&wide.forward_with(&map, &steps).unwrap(), &want) < 1e-6);
        }
        let wrong = Epilogue {
            residual: Some(Residual::Same(&x)),
            ..Epilogue::default()
        };
        assert!(linear.forward_with(&x, &wrong).is_err());
    }

    #[test]
    fn upsampled_convolution_equals_upsampling_first() {
        let steps = Epilogue::activation(Activation::Relu);
        for (inputs, outputs) in [(40, 48), (8, 3)] {
            let conv = Conv2d::new(
                random(&[outputs, inputs, 3, 3]),
                Some(random(&[outputs])),
                ConvOptions::SAME_3X3,
            )
            .unwrap();
            let x = random(&[1, 5, 7, inputs]);
            let large = crate::ops::upsample_nearest2(&x).unwrap();
            let want = steps.apply(conv.forward(&large).unwrap()).unwrap();
            let found = conv.forward_upsampled_with(&x, &steps).unwrap();
            assert!(distance(&found, &want) < 1e-5);
        }
    }

    #[test]
    fn gradients_still_reach_a_residual() {
        let linear = Linear::new(random(&[8, 8]), None).unwrap();
        let residual = crate::tensor::variable(vec![0.5; 24], &[3, 8]);
        let steps = Epilogue {
            residual: Some(Residual::Same(&residual)),
            ..Epilogue::default()
        };
        let y = linear.forward_with(&random(&[3, 8]), &steps).unwrap();
        let gradients = y.sum_all().unwrap().host().unwrap().backward().unwrap();
        let found = gradients
            .get(residual.on_host("test").unwrap())
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert!(found.iter().flatten().all(|g| *g == 1.0));
    }
}
