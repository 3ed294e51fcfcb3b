//! Attentions and rotary position embedding.

use super::accelerated;
use super::linear::shape_error;
use super::rotary_at::{RotaryAngles, rotary_at};
use super::storage::{cpu_slice, tensor, with_slices};
use super::tangent;
use crate::error::Result;
use crate::tensor::{OnDevice, Tensor};
use brisk_cuda::Device;
use brisk_cuda::ops::HeadLayout;
use brisk_kernels::attention::{self as softmax, AttentionShape};
use brisk_kernels::linear_attention::{self as relu, LinearAttentionShape};
use brisk_kernels::rotary as rotary_kernel;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// ReLU linear attention; q, k and v are `[batch, tokens, heads·dim]`. ReLU is applied to q and k
/// inside. `o_n = Σ v_m (k_m·q_n) / (Σ k_m·q_n + eps)`, accumulated in f32.
pub fn linear_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    eps: f64,
) -> Result<Tensor> {
    let (batch, tokens, width) = q
        .dims3()
        .map_err(|_| shape_error("linear_attention", q.dims(), "[batch, tokens, channels]"))?;
    if heads == 0 || width % heads != 0 || k.dims() != q.dims() || v.dims() != q.dims() {
        let expected = format!("q, k and v of one shape whose channels {heads} heads divide");
        return Err(shape_error("linear_attention", k.dims(), &expected));
    }
    if let Some(q) = q.device() {
        let (k, v) = (
            k.on_device("linear_attention")?,
            v.on_device("linear_attention")?,
        );
        let layout = HeadLayout::Apart(q.tensor(), k.tensor(), v.tensor());
        return Ok(brisk_cuda::ops::linear_attention(&[layout], heads, eps as f32)?.into());
    }
    if [q, k, v].iter().any(|x| x.has_tangent()) {
        return tangent::linear_attention([q, k, v], heads, eps);
    }
    let shape = LinearAttentionShape {
        batch,
        tokens,
        heads,
        dim: width / heads,
        eps: eps as f32,
    };
    if accelerated::is_any([q, k, v]) {
        return accelerated::apply(accelerated::LinearAttention(shape), &[q, k, v]);
    }
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, LinearAttention(shape))
}

struct LinearAttention(LinearAttentionShape);

impl CustomOp3 for LinearAttention {
    fn name(&self) -> &'static str {
        "linear_attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (q, k, v) = (cpu_slice(q, lq)?, cpu_slice(k, lk)?, cpu_slice(v, lv)?);
        let mut o = vec![0.0; q.len()];
        relu::forward(&self.0, q, k, v, &mut o);
        Ok((CpuStorage::F32(o), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &HostTensor,
        k: &HostTensor,
        v: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let dims = q.dims().to_vec();
        with_slices!([q, k, v, grad], {
            let (dq, dk, dv) = relu::backward(&self.0, q, k, v, grad);
            Ok((
                Some(tensor(dq, &dims)?),
                Some(tensor(dk, &dims)?),
                Some(tensor(dv, &dims)?),
            ))
        })
    }
}

/// Heads and masks of [`attention`].
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub key_value_heads: usize,
    /// Factor of the products, usually 1/√dim.
    pub scale: f32,
    /// `cap·tanh(s/cap)` on the scaled products.
    pub softcap: Option<f32>,
    /// Causal mask: the number of keys that stand before the first query.
    pub causal: Option<usize>,
    /// Keys of each batch row that are valid, from the first; the rest are not seen.
    pub key_lengths: Option<Vec<usize>>,
    /// Keys that are seen, one flag a key; combines with `key_lengths`.
    pub key_mask: Option<Vec<Vec<bool>>>,
    /// With a causal mask: how many keys a query sees at most, itself included.
    pub sliding_window: Option<usize>,
}

impl AttentionOptions {
    /// Unmasked attention with as many key-value heads as query heads and scale 1/√dim.
    pub fn new(heads: usize, dim: usize) -> Self {
        Self {
            heads,
            key_value_heads: heads,
            scale: 1.0 / (dim as f32).sqrt(),
            softcap: None,
            causal: None,
            key_lengths: None,
            key_mask: None,
            sliding_window: None,
        }
    }

    pub(super) fn mask(&self, batch: usize, keys: usize) -> Result<Option<Vec<Vec<bool>>>> {
        let lengths_fit = self
            .key_lengths
            .as_ref()
            .is_none_or(|l| l.len() == batch && l.iter().all(|&l| l <= keys));
        let mask_fits = self
            .key_mask
            .as_ref()
            .is_none_or(|m| m.len() == batch && m.iter().all(|m| m.len() == keys));
        if !lengths_fit || !mask_fits {
            return Err(crate::Error::Shape(format!(
                "attention: the key mask must cover {batch} rows of {keys} keys; lengths given: {:?}",
                self.key_lengths
            )));
        }
        if self.key_mask.is_none() && self.key_lengths.iter().flatten().all(|&l| l == keys) {
            return Ok(None);
        }
        let mut mask = self
            .key_mask
            .clone()
            .unwrap_or_else(|| vec![vec![true; keys]; batch]);
        for (row, &length) in mask.iter_mut().zip(self.key_lengths.iter().flatten()) {
            row[length..].fill(false);
        }
        Ok(Some(mask))
    }
}

/// Softmax attention: q `[batch, queries, heads·dim]`, k and v `[batch, keys, kv_heads·dim]`, to
/// `[batch, queries, heads·dim]`. A query that sees no key gives zero.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &AttentionOptions) -> Result<Tensor> {
    let (batch, queries, width) = q
        .dims3()
        .map_err(|_| shape_error("attention", q.dims(), "[batch, queries, channels]"))?;
    let (heads, groups) = (options.heads, options.key_value_heads);
    let keys = k.dims().get(1).copied().unwrap_or(0);
    let fits = heads > 0
        && groups > 0
        && heads.is_multiple_of(groups)
        && width.is_multiple_of(heads)
        && k.dims() == [batch, keys, width / heads * groups]
        && v.dims() == k.dims();
    if !fits {
        let expected = format!(
            "k and v [{batch}, keys, {groups} heads of {width}/{heads} channels], for q {:?}",
            q.dims()
        );
        return Err(shape_error("attention", k.dims(), &expected));
    }
    if let Some(q) = q.device() {
        return on_device(q, k, v, options.mask(batch, keys)?, options);
    }
    if [q, k, v].iter().any(|x| x.has_tangent()) {
        return tangent::attention([q, k, v], options.mask(batch, keys)?, options);
    }
    let shape = AttentionShape {
        batch,
        queries,
        keys,
        heads,
        key_value_heads: groups,
        dim: width / heads,
        scale: options.scale,
        softcap: options.softcap,
        causal_offset: options.causal,
        window: options.sliding_window,
        key_mask: options.mask(batch, keys)?,
    };
    if accelerated::is_any([q, k, v]) {
        return accelerated::apply(accelerated::MaskedAttention(shape), &[q, k, v]);
    }
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, Attention(shape))
}

/// The same on a card. Lengths and masks are control data: they are uploaded.
fn on_device(
    q: &OnDevice,
    k: &Tensor,
    v: &Tensor,
    mask: Option<Vec<Vec<bool>>>,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let (k, v) = (k.on_device("attention")?, v.on_device("attention")?);
    let flags = mask.map(|rows| flags(rows, q.device())).transpose()?;
    let how = brisk_cuda::ops::Attention {
        heads: options.heads,
        key_value_heads: options.key_value_heads,
        scale: options.scale,
        softcap: options.softcap,
        causal: options.causal,
        window: options.sliding_window,
        lengths: None,
        mask: flags.as_ref(),
        ends: None,
    };
    Ok(brisk_cuda::ops::attention(q.tensor(), k.tensor(), v.tensor(), &how)?.into())
}

/// Flags of keys on a card, the last ones kept: all layers of a pass mask the same.
fn flags(rows: Vec<Vec<bool>>, device: &Device) -> Result<brisk_cuda::Tensor> {
    type Last = Option<(Vec<Vec<bool>>, brisk_cuda::Tensor)>;
    static LAST: Mutex<Last> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((known, flags)) if *known == rows && flags.device() == device => {
            return Ok(flags.clone());
        }
        _ => {}
    }
    let sides = [rows.len(), rows.first().map_or(0, Vec::len)];
    let values: Vec<u32> = rows.iter().flatten().copied().map(u32::from).collect();
    let flags = device.upload_u32(&values, &sides)?;
    *last = Some((rows, flags.clone()));
    Ok(flags)
}

struct Attention(AttentionShape);

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (q, k, v) = (cpu_slice(q, lq)?, cpu_slice(k, lk)?, cpu_slice(v, lv)?);
        let mut o = vec![0.0; q.len()];
        softmax::forward(&self.0, q, k, v, &mut o);
        Ok((CpuStorage::F32(o), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &HostTensor,
        k: &HostTensor,
        v: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let (q_dims, k_dims) = (q.dims().to_vec(), k.dims().to_vec());
        with_slices!([q, k, v, grad], {
            let (dq, dk, dv) = softmax::backward(&self.0, q, k, v, grad);
            Ok((
                Some(tensor(dq, &q_dims)?),
                Some(tensor(dk, &k_dims)?),
                Some(tensor(dv, &k_dims)?),
            ))
        })
    }
}

/// Rotary position embedding of `[batch, tokens, heads·dim]`, half-split as in Llama and Gemma
/// checkpoints; token `t` has position `offset + t`.
pub fn rotary(x: &Tensor, heads: usize, theta: f32, offset: usize) -> Result<Tensor> {
    let (_, tokens, width) = x
        .dims3()
        .map_err(|_| shape_error("rotary", x.dims(), "[batch, tokens, channels]"))?;
    if heads == 0 || tokens == 0 || !width.is_multiple_of(2 * heads) {
        return Err(shape_error(
            "rotary",
            x.dims(),
            &format!("{heads} heads of an even size"),
        ));
    }
    if let Some(x) = x.device() {
        return angles(width / heads, theta, offset..offset + tokens).turn_on_device(x, heads);
    }
    if x.is_accelerated() {
        return rotary_at(
            x,
            heads,
            &angles(width / heads, theta, offset..offset + tokens),
        );
    }
    let op = Rotary {
        tokens,
        heads,
        dim: width / heads,
        theta,
        offset,
        inverse: false,
    };
    x.contiguous()?.apply_op1(op)
}

/// Sines and cosines for a card, the last ones kept: all layers of a pass turn by the same.
fn angles(dim: usize, theta: f32, positions: Range<usize>) -> RotaryAngles {
    type Key = (usize, u32, Range<usize>);
    static LAST: Mutex<Option<(Key, RotaryAngles)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (dim, theta.to_bits(), positions.clone());
    match &*last {
        Some((known, angles)) if *known == key => angles.clone(),
        _ => {
            let angles = RotaryAngles::new(dim, theta, &positions.collect::<Vec<_>>());
            *last = Some((key, angles.clone()));
            angles
        }
    }
}

struct Rotary {
    tokens: usize,
    heads: usize,
    dim: usize,
    theta: f32,
    offset: usize,
    inverse: bool,
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut y = cpu_slice(x, layout)?.to_vec();
        rotary_kernel::rotate(
            &mut y,
            self.tokens,
            self.heads,
            self.dim,
            self.theta,
            self.offset,
            self.inverse,
        );
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let back = Self {
            inverse: !self.inverse,
            ..*self
        };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}
