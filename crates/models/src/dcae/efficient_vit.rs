//! The EfficientViT block of the inner stages: multi-scale attention, then a gated convolution.

use brisk_nn::ops::MultiScaleStates;
use brisk_nn::{Error, GluMbConv, LiteMla, Result, RmsNorm, Tensor, Weights};

use super::blocks::{end_of_branch, rms_norm};
use super::config::StageConfig;
use super::lite_mla;
use super::pass::Pass;
use crate::rows::{in_place, rows_of, strips, widened};

/// Rows that the depthwise convolution of a gated one sees on either side.
const FEED_FORWARD_HALO: usize = 1;

/// `x + attention(x)`, then `x + norm(gated convolution(x))`
pub(super) struct EfficientVitBlock {
    attention: LiteMla,
    feed_forward: GluMbConv,
    feed_forward_norm: RmsNorm,
}

impl EfficientVitBlock {
    pub(super) fn load(
        stage: &StageConfig,
        head_dim: usize,
        weights: &Weights,
        name: &str,
    ) -> Result<Self> {
        let channels = stage.channels;
        let feed_forward = weights.pp("conv_out");
        Ok(EfficientVitBlock {
            attention: lite_mla::load(stage, head_dim, &weights.pp("attn"), name)?,
            feed_forward: GluMbConv::load(&feed_forward, channels, 4 * channels)?,
            // The feed-forward's norm is RMS whatever norm the stage has.
            feed_forward_norm: rms_norm(&feed_forward.pp("norm"), channels)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, name: &str, pass: &mut Pass) -> Result<Tensor> {
        let x = pass.in_block(name, |trace| {
            self.attention
                .forward_residual(x, &mut trace.within("attn"))
        })?;
        pass.detail(name, "attn", &x);
        self.feed(&x)
    }

    /// `x + norm(gated convolution(x))`
    fn feed(&self, x: &Tensor) -> Result<Tensor> {
        let end = end_of_branch(Some(&self.feed_forward_norm), x);
        self.feed_forward.forward_with(x, &end)
    }

    /// The attention's keys and values are summed over all strips first; then every strip is attended
    /// and fed forward.
    pub(super) fn forward_strips(&self, x: Tensor, rows: usize) -> Result<Tensor> {
        let height = x.dim(1)?;
        let Some(attention) = self.attention.frozen() else {
            return Err(Error::Config(
                "strips are for models that are not trained".into(),
            ));
        };
        let mut states = MultiScaleStates::default();
        for strip in strips(height, rows) {
            let seen = widened(&strip, attention.halo, height);
            let projected = attention.projection.forward(&rows_of(&x, &seen)?)?;
            let inner = strip.start - seen.start..strip.end - seen.start;
            states.add(&projected, inner, attention.heads, &attention.scales)?;
        }
        let halo = attention.halo + FEED_FORWARD_HALO;
        in_place(x, rows, halo, |seen, inner| {
            let fed = widened(&inner, FEED_FORWARD_HALO, seen.dim(1)?);
            let projected = attention.projection.forward(seen)?;
            let attended = states.attend(
                &projected,
                attention.heads,
                &attention.scales,
                LiteMla::EPSILON,
            )?;
            let attended = rows_of(&attended, &fed)?;
            let y = self.attention.leave(&attended, &rows_of(seen, &fed)?)?;
            let y = self.feed(&y)?;
            rows_of(&y, &(inner.start - fed.start..inner.end - fed.start))
        })
    }
}
