//! Exact encoding and decoding in horizontal strips, for pictures whose full-resolution feature
//! maps don't fit in memory.
//!
//! Attention is global, but all of it lives in the deep stages, on maps of at most 1/64 of the
//! picture's pixels in the published models. Those stages run on the whole map; the shallow ones
//! are convolutions and pixelwise operations, so a strip of their output depends on a strip of
//! their input with a few rows of halo. Zero padding happens at the picture's border alone: at
//! an inner edge the rows that the padding spoils are those of the halo, which are cut off.

use brisk_nn::{Error, Result};
use candle_core::Tensor;

use super::blocks::Trace;
use super::config::{BlockKind, StageConfig};
use super::model::Autoencoder;

/// Deepest stage from which the global part starts even without attention (f8).
const DEEPEST_SPLIT: usize = 3;

impl Autoencoder {
    /// As [`decode`](Self::decode) in less memory, about `rows_per_strip` rows of picture at a
    /// time (rounded up to what one row of the inner map makes). Not differentiable.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and when `rows_per_strip` is 0.
    pub fn decode_strips(&self, latent: &Tensor, rows_per_strip: usize) -> Result<Tensor> {
        let [batch, height, width, _] = self.check_latent(latent)?;
        let (ratio, channels) = (self.ratio(), self.config.in_channels);
        let shape = (batch, height * ratio, width * ratio, channels);
        let picture = Tensor::zeros(shape, latent.dtype(), latent.device())?;
        self.decode_strips_with(latent, rows_per_strip, |row, strip| {
            Ok(picture.slice_set(strip, 1, row)?)
        })?;
        Ok(picture)
    }

    /// As [`decode_strips`](Self::decode_strips); `sink` gets each strip `[B,rows,W,3]` with the
    /// picture row it starts at, from top to bottom.
    ///
    /// # Errors
    /// As [`decode_strips`](Self::decode_strips), and what `sink` returns.
    pub fn decode_strips_with(
        &self,
        latent: &Tensor,
        rows_per_strip: usize,
        mut sink: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let decoder = self.decoder()?;
        self.check_latent(latent)?;
        check_rows(rows_per_strip)?;
        let mut trace = Trace::none();
        let split = split(&self.config.decoder);
        let Some(halo) = decoder.halo(split) else {
            return Err(Error::Config(
                "attention in a stage that strips take as local".into(),
            ));
        };
        let stages = self.config.decoder.len();
        let global = decoder.enter(&latent.detach(), &mut trace)?;
        let global = decoder.run(&global, split..stages, &mut trace)?.detach();

        let scale = 1 << split;
        let height = global.dim(1)?;
        let rows = rows_per_strip.div_ceil(scale);
        for start in (0..height).step_by(rows) {
            let end = (start + rows).min(height);
            let (top, bottom) = (start.saturating_sub(halo), (end + halo).min(height));
            let x = global.narrow(1, top, bottom - top)?.contiguous()?;
            let x = decoder.run(&x, 0..split, &mut trace)?;
            let x = decoder.leave(&x, &mut trace)?;
            let strip = x
                .narrow(1, (start - top) * scale, (end - start) * scale)?
                .contiguous()?;
            sink(start * scale, &strip.detach())?;
        }
        Ok(())
    }

    /// As [`encode`](Self::encode) in less memory, about `rows_per_strip` rows of picture at a
    /// time (rounded up to what makes one row of the inner map). Not differentiable.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when `rows_per_strip` is 0.
    pub fn encode_strips(&self, picture: &Tensor, rows_per_strip: usize) -> Result<Tensor> {
        let encoder = self.encoder()?;
        let [batch, height, width, _] = self.check_picture(picture)?;
        check_rows(rows_per_strip)?;
        let picture = picture.detach();
        let mut trace = Trace::none();
        let split = split(&self.config.encoder);
        let Some(halo) = encoder.halo(split) else {
            return Err(Error::Config(
                "attention in a stage that strips take as local".into(),
            ));
        };
        let scale = 1 << split;
        // Whole rows of the inner map, so that resampling keeps its phase.
        let halo = halo.next_multiple_of(scale);
        let rows = rows_per_strip.next_multiple_of(scale);

        let channels = self.config.encoder[split].channels;
        let shape = (batch, height / scale, width / scale, channels);
        let global = Tensor::zeros(shape, picture.dtype(), picture.device())?;
        for start in (0..height).step_by(rows) {
            let end = (start + rows).min(height);
            let (top, bottom) = (start.saturating_sub(halo), (end + halo).min(height));
            let x = picture.narrow(1, top, bottom - top)?.contiguous()?;
            let x = encoder.enter(&x, &mut trace)?;
            let x = encoder.run(&x, 0..split, &mut trace)?;
            let strip = x.narrow(1, (start - top) / scale, (end - start) / scale)?;
            global.slice_set(&strip.contiguous()?.detach(), 1, start / scale)?;
        }
        let x = encoder.run(&global, split..self.config.encoder.len(), &mut trace)?;
        Ok(encoder.leave(&x, &mut trace)?.detach())
    }
}

fn check_rows(rows_per_strip: usize) -> Result<()> {
    if rows_per_strip == 0 {
        return Err(Error::Config(
            "rows_per_strip is 0, expected at least 1".into(),
        ));
    }
    Ok(())
}

/// The first stage of the global part: everything shallower is local.
fn split(stages: &[StageConfig]) -> usize {
    let attention = stages
        .iter()
        .position(|stage| stage.layers > 0 && stage.block == BlockKind::EfficientVit)
        .unwrap_or(stages.len());
    attention.min(DEEPEST_SPLIT).min(stages.len() - 1)
}
