//! Normalisations, modulation and gated residuals.

use super::accelerated;
use super::epilogue::{Epilogue, Norm, Residual};
use super::linear::shape_error;
use super::storage::{cpu_slice, is_plain, tensor, with_slices};
use super::tangent;
use crate::error::{Error, Result};
use crate::tensor::{D, DType, Tensor};
use brisk_cuda::Element;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::{modulate, norm};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// `x / sqrt(mean(x²) + eps)·weight + bias` over the last dimension.
pub fn rms_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let width = weight.elem_count();
    let fits = width > 0
        && weight.rank() == 1
        && x.dims().last() == Some(&width)
        && bias.is_none_or(|b| b.dims() == [width]);
    if !fits {
        return Err(shape_error(
            "rms_norm",
            x.dims(),
            &format!("a last dimension of {width}"),
        ));
    }
    if let Some(x) = x.device() {
        let norm = Norm {
            weight,
            bias,
            add_one: false,
            eps,
        };
        let steps = Epilogue {
            norm: Some(norm),
            ..Epilogue::default()
        };
        return steps.on_device(None, |_| Ok(x.tensor().clone()));
    }
    if x.has_tangent() {
        return tangent::rms_norm(x, weight, bias, eps);
    }
    if accelerated::is_any([x, weight]) {
        let operands: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
        return accelerated::apply(accelerated::RmsNorm(eps), &operands);
    }
    let (x, weight, op) = (
        x.contiguous()?,
        weight.contiguous()?,
        RmsNorm { eps: eps as f32 },
    );
    Ok(match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op)?,
        None => x.apply_op2(&weight, op)?,
    })
}

/// `(x − mean) / sqrt(variance + eps)·weight + bias` over the last dimension.
///
/// # Errors
/// Another width.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    if x.device().is_some() {
        return layer_norm_on_device(x, weight, bias, eps);
    }
    let parameters = || [weight].into_iter().chain(bias);
    let (width, dims) = (weight.elem_count(), x.dims().to_vec());
    let fits = dims.last() == Some(&width) && parameters().all(|p| p.dims() == [width]);
    if !fits || !is_plain(x) || !parameters().all(is_plain) || x.dtype() != DType::F32 {
        // About the mean, the root of the mean square is the deviation.
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        return rms_norm(&centred, weight, bias, eps);
    }
    let no_bias = Tensor::zeros(0, DType::F32)?;
    let added = bias.unwrap_or(&no_bias);
    with_slices!([x, weight, added], {
        let mut y = unfilled(x.len());
        let added = bias.is_some().then_some(added);
        norm::layer_forward(x, weight, added, eps as f32, &mut y);
        Ok(tensor(y, &dims)?)
    })
}

/// The same on a card: all rows are modulated alike.
fn layer_norm_on_device(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let width = weight.elem_count();
    let dims = x.dims().to_vec();
    let rows = x.elem_count() / width.max(1);
    let row = |vector: &Tensor| vector.to_dtype(DType::F32)?.reshape((1, width));
    let scale = row(weight)?.affine(1.0, -1.0)?;
    let shift = match bias {
        Some(bias) => row(bias)?,
        None => scale.affine(0.0, 0.0)?,
    };
    let normed = layer_norm_modulate(&x.reshape((1, rows, width))?, &shift, &scale, eps)?;
    normed.reshape(dims)
}

/// Two RMS norms in one pass, where a card has a kernel for it.
///
/// # Errors
/// Sizes that do not fit.
pub(crate) fn norm_pair(
    (a, norm_a): (&Tensor, &Norm),
    (b, norm_b): (&Tensor, &Norm),
) -> Result<Option<(Tensor, Tensor)>> {
    let (Some(x), Some(y)) = (a.device(), b.device()) else {
        return Ok(None);
    };
    let plain = |norm: &Norm| norm.bias.is_none() && !norm.add_one;
    if !plain(norm_a) || !plain(norm_b) || norm_a.eps != norm_b.eps || a.dims() != b.dims() {
        return Ok(None);
    }
    let [weight_a, weight_b] = [norm_a, norm_b].map(|norm| norm.weight.on_device("rms_norm"));
    let [x, y] = brisk_cuda::ops::rms_norm_pair(
        (x.tensor(), weight_a?.tensor()),
        (y.tensor(), weight_b?.tensor()),
        norm_a.eps as f32,
    )?;
    Ok(Some((x.into(), y.into())))
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    fn run(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        shape: &Shape,
    ) -> (CpuStorage, Shape) {
        let mut y = unfilled(x.len());
        norm::rms_forward(x, weight, bias, self.eps, &mut y);
        (CpuStorage::F32(y), shape.clone())
    }

    fn backward(
        &self,
        x: &HostTensor,
        weight: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<[HostTensor; 3]> {
        let (dims, width) = (x.dims().to_vec(), weight.elem_count());
        with_slices!([x, weight, grad], {
            let mut dx = unfilled(x.len());
            let (dw, db) = norm::rms_backward(x, weight, self.eps, grad, &mut dx);
            Ok([
                tensor(dx, &dims)?,
                tensor(dw, &[width])?,
                tensor(db, &[width])?,
            ])
        })
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.run(cpu_slice(x, lx)?, cpu_slice(w, lw)?, None, lx.shape()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>)> {
        let [dx, dw, _] = self.backward(x, w, grad)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
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
            lx.shape(),
        ))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        w: &HostTensor,
        _: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let [dx, dw, db] = self.backward(x, w, grad)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

/// Checks `x` `[batch, tokens, channels]` against vectors `[batch, channels]`; gives tokens, channels.
fn per_picture(what: &str, x: &Tensor, vectors: &[&Tensor]) -> Result<(usize, usize)> {
    let (batch, tokens, channels) = x
        .dims3()
        .map_err(|_| shape_error(what, x.dims(), "[batch, tokens, channels]"))?;
    for vector in vectors {
        if vector.dims() != [batch, channels] {
            return Err(shape_error(
                what,
                vector.dims(),
                &format!("[{batch}, {channels}]"),
            ));
        }
    }
    if tokens == 0 || channels == 0 {
        return Err(shape_error(
            what,
            x.dims(),
            "at least one token and channel",
        ));
    }
    Ok((tokens, channels))
}

/// `LayerNorm(x)·(1 + scale) + shift` without affine parameters; `x` is `[batch, tokens, channels]`,
/// shift and scale are `[batch, channels]`.
pub fn layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    let (tokens, channels) = per_picture("layer_norm_modulate", x, &[shift, scale])?;
    if let Some(x) = x.device() {
        let name = "layer_norm_modulate";
        let wide = |vector: &Tensor| {
            brisk_cuda::ops::cast(vector.on_device(name)?.tensor(), Element::F32)
                .map_err(Error::from)
        };
        let (shift, scale) = (wide(shift)?, wide(scale)?);
        return Ok(
            brisk_cuda::ops::layer_norm_modulate(x.tensor(), &shift, &scale, eps as f32)?.into(),
        );
    }
    if [x, shift, scale].iter().any(|x| x.has_tangent()) {
        return tangent::layer_norm_modulate(x, shift, scale, eps);
    }
    if accelerated::is_any([x, shift, scale]) {
        let statement = accelerated::LayerNormModulate(eps);
        return accelerated::apply(statement, &[x, shift, scale]);
    }
    let op = LayerNormModulate {
        tokens,
        channels,
        eps: eps as f32,
    };
    x.contiguous()?
        .apply_op3(&shift.contiguous()?, &scale.contiguous()?, op)
}

struct LayerNormModulate {
    tokens: usize,
    channels: usize,
    eps: f32,
}

impl CustomOp3 for LayerNormModulate {
    fn name(&self) -> &'static str {
        "layer_norm_modulate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        shift: &CpuStorage,
        l_shift: &Layout,
        scale: &CpuStorage,
        l_scale: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, lx)?;
        let (shift, scale) = (cpu_slice(shift, l_shift)?, cpu_slice(scale, l_scale)?);
        let mut y = unfilled(x.len());
        modulate::layer_norm(
            x,
            self.tokens,
            self.channels,
            shift,
            scale,
            self.eps,
            &mut y,
        );
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        shift: &HostTensor,
        scale: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let (dims, vector) = (x.dims().to_vec(), shift.dims().to_vec());
        with_slices!([x, scale, grad], {
            let (dx, dshift, dscale) =
                modulate::layer_norm_backward(x, self.tokens, self.channels, scale, self.eps, grad);
            Ok((
                Some(tensor(dx, &dims)?),
                Some(tensor(dshift, &vector)?),
                Some(tensor(dscale, &vector)?),
            ))
        })
    }
}

/// `x + gate·branch`; `x` and branch are `[batch, tokens, channels]`, the gate is `[batch, channels]`.
pub fn gate_residual(x: &Tensor, gate: &Tensor, branch: &Tensor) -> Result<Tensor> {
    let (tokens, channels) = per_picture("gate_residual", x, &[gate])?;
    if branch.dims() != x.dims() {
        return Err(shape_error(
            "gate_residual",
            branch.dims(),
            &format!("{:?}", x.dims()),
        ));
    }
    if let Some(y) = branch.device() {
        let steps = Epilogue {
            residual: Some(Residual::Gated(x, gate)),
            ..Epilogue::default()
        };
        return steps.on_device(None, |steps| brisk_cuda::ops::steps(y.tensor(), steps));
    }
    if [x, gate, branch].iter().any(|x| x.has_tangent()) {
        return x + gate.unsqueeze(1)?.broadcast_mul(branch)?;
    }
    if accelerated::is_any([x, gate, branch]) {
        return accelerated::apply(accelerated::GateResidual, &[x, gate, branch]);
    }
    let op = GateResidual { tokens, channels };
    x.contiguous()?
        .apply_op3(&gate.contiguous()?, &branch.contiguous()?, op)
}

struct GateResidual {
    tokens: usize,
    channels: usize,
}

impl CustomOp3 for GateResidual {
    fn name(&self) -> &'static str {
        "gate_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gate: &CpuStorage,
        lg: &Layout,
        branch: &CpuStorage,
        lb: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (x, gate, branch) = (
            cpu_slice(x, lx)?,
            cpu_slice(gate, lg)?,
            cpu_slice(branch, lb)?,
        );
        let mut y = unfilled(x.len());
        modulate::gate_residual(x, self.tokens, self.channels, gate, branch, &mut y);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        gate: &HostTensor,
        branch: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let (dims, vector, dx) = (x.dims().to_vec(), gate.dims().to_vec(), grad.clone());
        with_slices!([gate, branch, grad], {
            let (dgate, dbranch) =
                modulate::gate_residual_backward(self.tokens, self.channels, gate, branch, grad);
            Ok((
                Some(dx),
                Some(tensor(dgate, &vector)?),
                Some(tensor(dbranch, &dims)?),
            ))
        })
    }
}
