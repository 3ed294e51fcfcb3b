//! Group normalisation.

use super::accelerated;
use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::pointwise::group_norm::{self as kernel, GroupNormShape, Moments};
use candle_core::{
    CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// Normalises `groups` groups of consecutive channels of maps `[batch, .., channels]`, each over all
/// positions of its map: `(x − mean)/√(variance + eps)·weight + bias`, both `[channels]`.
///
/// # Errors
/// Sizes that do not fit.
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let (dims, channels) = (x.dims(), weight.elem_count());
    let fits = dims.len() > 1
        && dims.last() == Some(&channels)
        && x.elem_count() > 0
        && groups > 0
        && channels.is_multiple_of(groups)
        && weight.dims() == [channels]
        && bias.dims() == [channels];
    if !fits {
        let expected = format!("[batch, .., {channels}] in {groups} groups of channels");
        return Err(shape_error("group_norm", dims, &expected));
    }
    let shape = GroupNormShape {
        batch: dims[0],
        pixels: dims[1..dims.len() - 1].iter().product(),
        channels,
        groups,
        eps,
    };
    if accelerated::is_any([x, weight, bias]) {
        return accelerated::apply(accelerated::GroupNorm(shape), &[x, weight, bias]);
    }
    let op = GroupNorm(shape);
    x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

struct GroupNorm(GroupNormShape);

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
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
        let x = cpu_slice(x, lx)?;
        let mut y = unfilled(x.len());
        kernel::forward(&self.0, x, cpu_slice(w, lw)?, cpu_slice(b, lb)?, &mut y);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        b: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let (dims, channels) = (x.dims().to_vec(), b.dims().to_vec());
        with_slices!([x, w, grad], {
            let mut dx = unfilled(x.len());
            let (dw, db) = kernel::backward(&self.0, x, w, grad, &mut dx);
            Ok((
                Some(tensor(dx, &dims)?),
                Some(tensor(dw, &channels)?),
                Some(tensor(db, &channels)?),
            ))
        })
    }
}

/// What a [`group_norm`] does to every channel of a map that comes in parts.
#[derive(Clone, Debug)]
pub struct GroupFactors(Vec<(f32, f32)>);

impl GroupFactors {
    /// Of a map with these `parts`, each `[.., channels]`.
    ///
    /// # Errors
    /// As [`group_norm`].
    pub fn of_parts(
        parts: &[Tensor],
        groups: usize,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
    ) -> Result<Self> {
        let channels = weight.elem_count();
        let mut moments = Moments::default();
        for part in parts {
            let fits = part.dims().last() == Some(&channels)
                && groups > 0
                && channels.is_multiple_of(groups);
            if !fits {
                let expected = format!("[.., {channels}] in {groups} groups of channels");
                return Err(shape_error("group_norm", part.dims(), &expected));
            }
            let own = with_slices!([part], { Moments::of(part, channels, groups) });
            moments = moments.with(own);
        }
        let factors = with_slices!([weight, bias], { moments.factors(eps, weight, bias) });
        Ok(Self(factors))
    }

    /// A part `[.., channels]`, normalised. Not differentiable.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let dims = x.dims().to_vec();
        if dims.last() != Some(&self.0.len()) {
            let expected = format!("[.., {}]", self.0.len());
            return Err(shape_error("group_norm", &dims, &expected));
        }
        let x = x.contiguous()?;
        with_slices!([x], {
            let mut y = unfilled(x.len());
            kernel::scale_shift(x, &self.0, &mut y);
            Ok(tensor(y, &dims)?)
        })
    }
}
