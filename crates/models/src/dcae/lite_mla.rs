//! The autoencoder's multi-scale linear attention.

use brisk_nn::ops::{self, Epilogue, GatheredScale};
use brisk_nn::{D, DepthwiseConv2d, Init, Linear, Result, RmsNorm, Tensor, Weights};

use super::blocks::{batch_norm, end_of_branch, rms_norm};
use super::config::{NormKind, StageConfig};
use super::pass::Pass;

/// Added to the attention's divisor.
pub(super) const ATTENTION_EPSILON: f64 = 1e-15;

/// Multi-scale linear attention.
///
/// One projection gives `3C` channels, laid out head by head as (query, key, value). Each extra
/// scale gathers that projection's neighbourhood (depthwise, then a 1x1 convolution in groups of
/// one head's query, key or value), and attends by itself; the outputs are concatenated.
pub(super) struct LiteMla {
    heads: usize,
    head_dim: usize,
    projection: Projection,
    scales: Vec<AttentionScale>,
    /// Batch norm included, where the stage has that.
    to_out: Linear,
    norm: Option<RmsNorm>,
}

/// The layer where its weights are frozen, up to the attention itself.
pub(super) struct FrozenAttention<'a> {
    pub(super) projection: &'a Linear,
    pub(super) heads: usize,
    pub(super) scales: Vec<GatheredScale<'a>>,
    /// Rows that the scales see on either side.
    pub(super) halo: usize,
}

/// The `[3C, C]` projection. Files hold it in thirds whose names (`to_q`, ..) don't say what the
/// rows are used for.
enum Projection {
    Fused(Linear),
    /// Joined in every forward pass, so that gradients reach the thirds.
    Thirds([Tensor; 3]),
}

struct AttentionScale {
    gather: DepthwiseConv2d,
    kernel: usize,
    /// `[3 * heads, head_dim (out), head_dim (in)]`
    mix: Tensor,
    /// The same with its last two dimensions exchanged, where it is frozen.
    turned: Option<Tensor>,
}

impl AttentionScale {
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
    pub(super) fn load(
        stage: &StageConfig,
        head_dim: usize,
        weights: &Weights,
        name: &str,
    ) -> Result<Self> {
        let channels = stage.channels;
        let heads = channels / head_dim;
        let third = |part: &str| {
            weights
                .pp(part)
                .get_stored("weight", &[channels, channels], Init::KaimingUniform)
        };
        let thirds = [third("to_q")?, third("to_k")?, third("to_v")?];
        let projection = if thirds.iter().any(Tensor::track_op) {
            Projection::Thirds(thirds)
        } else {
            Projection::Fused(Linear::new(Tensor::cat(&thirds, 0)?, None)?)
        };
        let mut scales = Vec::with_capacity(stage.scales.len());
        for (index, kernel) in stage.scales.iter().enumerate() {
            let weights = weights.pp("to_qkv_multiscale").pp(index);
            let mix = weights.pp("proj_out").get(
                "weight",
                &[3 * channels, head_dim, 1, 1],
                Init::KaimingUniform,
            )?;
            let mix = mix.reshape((3 * heads, head_dim, head_dim))?;
            scales.push(AttentionScale {
                gather: DepthwiseConv2d::load(
                    &weights.pp("proj_in"),
                    3 * channels,
                    *kernel,
                    false,
                )?,
                kernel: *kernel,
                turned: match mix.track_op() {
                    true => None,
                    false => Some(mix.transpose(1, 2)?.contiguous()?),
                },
                mix,
            });
        }
        let joined = channels * (1 + scales.len());
        let (out, norm) = (weights.pp("to_out"), weights.pp("norm_out"));
        let (to_out, norm) = match stage.norm {
            NormKind::Rms => {
                let out = Linear::load(&out, joined, channels, false, Init::KaimingUniform)?;
                (out, Some(rms_norm(&norm, channels)?))
            }
            NormKind::Batch => {
                let norm = batch_norm(&norm, channels, name)?;
                let weight = out.get("weight", &[channels, joined], Init::KaimingUniform)?;
                let (weight, bias) = norm.fold(&weight, None)?;
                (Linear::new(weight, Some(bias))?, None)
            }
        };
        Ok(LiteMla {
            heads,
            head_dim,
            projection,
            scales,
            to_out,
            norm,
        })
    }

    pub(super) fn frozen(&self) -> Option<FrozenAttention<'_>> {
        let Projection::Fused(projection) = &self.projection else {
            return None;
        };
        let scales: Option<Vec<_>> = self.scales.iter().map(AttentionScale::frozen).collect();
        Some(FrozenAttention {
            projection,
            heads: self.heads,
            scales: scales?,
            halo: self
                .scales
                .iter()
                .map(|scale| scale.kernel / 2)
                .max()
                .unwrap_or(0),
        })
    }

    /// `x + norm(to_out(attended))`
    pub(super) fn leave(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.to_out
            .forward_with(attended, &end_of_branch(self.norm.as_ref(), x))
    }

    /// `x + norm(attention(x))`
    pub(super) fn forward_residual(
        &self,
        x: &Tensor,
        name: &str,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let (tokens, heads, head_dim) = (height * width, self.heads, self.head_dim);
        let projected = match &self.projection {
            Projection::Fused(projection) => projection.forward(x)?,
            Projection::Thirds(thirds) => ops::linear(x, &Tensor::cat(thirds, 0)?, None)?,
        };
        if let Some(frozen) = self.frozen()
            && !pass.is_detailed()
            && !projected.track_op()
        {
            let attended = ops::multi_scale_linear_attention(
                &projected,
                heads,
                &frozen.scales,
                ATTENTION_EPSILON,
            )?;
            return self.leave(&attended, x);
        }
        if pass.is_detailed() {
            for (index, third) in ["attn.to_q", "attn.to_k", "attn.to_v"]
                .into_iter()
                .enumerate()
            {
                let third_of = projected.narrow(3, index * channels, channels)?;
                pass.detail(name, third, &third_of);
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
            ops::linear_attention(query, key, value, heads, ATTENTION_EPSILON)
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
            if pass.is_detailed() {
                let value = mixed.permute((2, 0, 1, 3))?.contiguous()?;
                let value = value.reshape((batch, height, width, 3 * channels))?;
                pass.detail(name, &format!("attn.to_qkv_multiscale.{index}"), &value);
            }
            outputs.push(attend(&part(0)?, &part(1)?, &part(2)?)?);
        }

        let joined = Tensor::cat(&outputs, D::Minus1)?;
        let joined = joined.reshape((batch, height, width, channels * outputs.len()))?;
        let out = self.to_out.forward(&joined)?;
        pass.detail(name, "attn.to_out", &out);
        let out = Epilogue {
            residual: None,
            ..end_of_branch(self.norm.as_ref(), x)
        }
        .apply(out)?;
        pass.detail(name, "attn.norm_out", &out);
        x + out
    }
}
