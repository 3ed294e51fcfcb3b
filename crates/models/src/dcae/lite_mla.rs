//! The autoencoder's multi-scale linear attention, from its tensors.

use brisk_nn::{
    Init, Linear, LiteMla, LiteMlaProjection, LiteMlaScale, Result, RmsNorm, Tensor, Weights,
};

use super::blocks::{batch_norm, rms_norm};
use super::config::{NormKind, StageConfig};

/// Reads `to_q`, `to_k`, `to_v`, `to_qkv_multiscale`, `to_out` and `norm_out`.
pub(super) fn load(
    stage: &StageConfig,
    head_dim: usize,
    weights: &Weights,
    name: &str,
) -> Result<LiteMla> {
    let channels = stage.channels;
    let heads = [channels / head_dim, head_dim];
    let third = |part: &str| {
        weights
            .pp(part)
            .get_stored("weight", &[channels, channels], Init::KaimingUniform)
    };
    let thirds = [third("to_q")?, third("to_k")?, third("to_v")?];
    let projection = if thirds.iter().any(Tensor::track_op) {
        LiteMlaProjection::Thirds(thirds)
    } else {
        LiteMlaProjection::Fused(Linear::new(Tensor::cat(&thirds, 0)?, None)?)
    };
    let scales = stage.scales.iter().enumerate().map(|(index, kernel)| {
        let weights = weights.pp("to_qkv_multiscale").pp(index);
        LiteMlaScale::load(
            &weights.pp("proj_in"),
            &weights.pp("proj_out"),
            heads,
            *kernel,
        )
    });
    let scales = scales.collect::<Result<Vec<_>>>()?;
    let joined = channels * (1 + scales.len());
    let (out, norm) = (weights.pp("to_out"), weights.pp("norm_out"));
    let (to_out, norm): (Linear, Option<RmsNorm>) = match stage.norm {
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
    Ok(LiteMla::new(heads, projection, scales, to_out, norm))
}
