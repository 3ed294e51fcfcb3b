//! The multi-scale linear attention of EfficientViT (arXiv 2205.14756) and DC-AE.

use super::{DepthwiseConv2d, Linear, RmsNorm};
use crate::error::Result;
use crate::ops::{self, Epilogue, GatheredScale, Residual};
use crate::tensor::{D, Tensor};
use crate::trace::Trace;
use crate::weights::{Init, Weights};

/// Multi-scale linear attention.
///
/// One projection gives `3C` channels, laid out head by head as (query, key, value). Each extra
/// scale gathers that projection's neighbourhood (depthwise, then a 1x1 convolution in groups of
/// one head's query, key or value), and attends by itself; the outputs are concatenated.
#[derive(Debug)]
pub struct LiteMla {
    heads: usize,
    head_dim: usize,
    projection: LiteMlaProjection,
    scales: Vec<LiteMlaScale>,
    to_out: Linear,
    norm: Option<RmsNorm>,
}

/// The `[3C, C]` projection. Files hold it whole, or in thirds whose names (`to_q`, ..) don't say what the
/// rows are used for.
#[derive(Debug)]
pub enum LiteMlaProjection {
    /// One layer.
    Fused(Linear),
    /// Joined in every forward pass, so that gradients reach the thirds.
    Thirds([Tensor; 3]),
}

/// An extra scale.
#[derive(Debug)]
pub struct LiteMlaScale {
    gather: DepthwiseConv2d,
    kernel: usize,
    /// `[3 * heads, head_dim (out), head_dim (in)]`
    mix: Tensor,
    /// The same with its last two dimensions exchanged, where it is frozen.
    turned: Option<Tensor>,
}

/// The layer where its weights are frozen, up to the attention itself.
#[derive(Debug)]
pub struct FrozenLiteMla<'a> {
    /// To queries, keys and values.
    pub projection: &'a Linear,
    /// Heads of a scale.
    pub heads: usize,
    /// Extra scales.
    pub scales: Vec<GatheredScale<'a>>,
    /// Rows that the scales see on either side.
    pub halo: usize,
}

impl LiteMlaScale {
    /// Reads `weight` of a depthwise convolution over `3·heads·head_dim` channels with a kernel of this side, and
    /// that of the groups' 1×1 convolution `[3·heads·head_dim, head_dim, 1, 1]`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(
        gather: &Weights,
        mix: &Weights,
        [heads, head_dim]: [usize; 2],
        kernel: usize,
    ) -> Result<Self> {
        let wide = 3 * heads * head_dim;
        let mix = mix.get("weight", &[wide, head_dim, 1, 1], Init::KaimingUniform)?;
        let mix = mix.reshape((3 * heads, head_dim, head_dim))?;
        Ok(Self {
            gather: DepthwiseConv2d::load(gather, wide, kernel, false)?,
            kernel,
            turned: match mix.track_op() {
                true => None,
                false => Some(mix.transpose(1, 2)?.contiguous()?),
            },
            mix,
        })
    }

    /// The scale as one operation takes it, where its weights are frozen.
    fn frozen(&self) -> Option<GatheredScale<'_>> {
        Some(GatheredScale {
            gather: self.gather.frozen()?,
            kernel: self.kernel,
            mix: self.turned.as_ref()?,
        })
    }
}

impl LiteMla {
    /// Added to the attention's divisor.
    pub const EPSILON: f64 = 1e-15;

    /// From its parts; `to_out` takes the channels of all scales and holds a norm that was folded into it, `norm` is
    /// one that was not.
    pub fn new(
        [heads, head_dim]: [usize; 2],
        projection: LiteMlaProjection,
        scales: Vec<LiteMlaScale>,
        to_out: Linear,
        norm: Option<RmsNorm>,
    ) -> Self {
        Self {
            heads,
            head_dim,
            projection,
            scales,
            to_out,
            norm,
        }
    }

    /// Its parameters, where none is trained.
    pub fn frozen(&self) -> Option<FrozenLiteMla<'_>> {
        let LiteMlaProjection::Fused(projection) = &self.projection else {
            return None;
        };
        let scales: Option<Vec<_>> = self.scales.iter().map(LiteMlaScale::frozen).collect();
        let halos = self.scales.iter().map(|scale| scale.kernel / 2);
        Some(FrozenLiteMla {
            projection,
            heads: self.heads,
            scales: scales?,
            halo: halos.max().unwrap_or(0),
        })
    }

    /// What follows the last layer: the norm, and the addition of `x`.
    fn end<'a>(&'a self, x: &'a Tensor) -> Epilogue<'a> {
        Epilogue {
            activation: None,
            norm: self.norm.as_ref().map(RmsNorm::step),
            residual: Some(Residual::Same(x)),
        }
    }

    /// `x + norm(to_out(attended))`
    ///
    /// # Errors
    /// Maps of other sizes.
    pub fn leave(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.to_out.forward_with(attended, &self.end(x))
    }

    /// `x + norm(attention(x))`, `[batch, height, width, C]`. `trace` sees in detail `to_q`, `to_k`, `to_v`,
    /// `to_qkv_multiscale.{i}`, `to_out` and `norm_out`.
    ///
    /// # Errors
    /// A map of another width.
    pub fn forward_residual(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let (tokens, heads, head_dim) = (height * width, self.heads, self.head_dim);
        let projected = match &self.projection {
            LiteMlaProjection::Fused(projection) => projection.forward(x)?,
            LiteMlaProjection::Thirds(thirds) => ops::linear(x, &Tensor::cat(thirds, 0)?, None)?,
        };
        if let Some(frozen) = self.frozen()
            && !trace.is_detailed()
            && !projected.track_op()
        {
            let attended = ops::multi_scale_linear_attention(
                &projected,
                heads,
                &frozen.scales,
                Self::EPSILON,
            )?;
            return self.leave(&attended, x);
        }
        if trace.is_detailed() {
            for (index, third) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
                let third_of = projected.narrow(3, index * channels, channels)?;
                trace.detail(third, &third_of);
            }
        }

        // [B,H,W,3C] with channels (head, part, dim) -> part as [B,N,C]
        let grouped = projected.reshape((batch, tokens, heads, 3, head_dim))?;
        let part = |index| -> Result<Tensor> {
            grouped
                .narrow(3, index, 1)?
                .contiguous()?
                .reshape((batch, tokens, channels))
        };
        let attend = |query: &Tensor, key: &Tensor, value: &Tensor| {
            ops::linear_attention(query, key, value, heads, Self::EPSILON)
        };
        let mut outputs = vec![attend(&part(0)?, &part(1)?, &part(2)?)?];

        for (index, scale) in self.scales.iter().enumerate() {
            let gathered = scale.gather.forward(&projected)?;
            // One matrix product for each of the 3 * heads groups.
            let groups = gathered
                .reshape((batch * tokens, 3 * heads, head_dim))?
                .transpose(0, 1)?
                .contiguous()?;
            let mixed = groups.matmul(&scale.mix.transpose(1, 2)?.contiguous()?)?;
            let mixed = mixed.reshape((heads, 3, batch * tokens, head_dim))?;
            let part = |index| -> Result<Tensor> {
                mixed
                    .narrow(1, index, 1)?
                    .squeeze(1)?
                    .transpose(0, 1)?
                    .contiguous()?
                    .reshape((batch, tokens, channels))
            };
            if trace.is_detailed() {
                let value = mixed.permute((2, 0, 1, 3))?.contiguous()?;
                let value = value.reshape((batch, height, width, 3 * channels))?;
                trace.detail(&format!("to_qkv_multiscale.{index}"), &value);
            }
            outputs.push(attend(&part(0)?, &part(1)?, &part(2)?)?);
        }

        let joined = Tensor::cat(&outputs, D::Minus1)?;
        let joined = joined.reshape((batch, height, width, channels * outputs.len()))?;
        let out = self.to_out.forward(&joined)?;
        trace.detail("to_out", &out);
        let out = Epilogue {
            residual: None,
            ..self.end(x)
        }
        .apply(out)?;
        trace.detail("norm_out", &out);
        x + out
    }
}
