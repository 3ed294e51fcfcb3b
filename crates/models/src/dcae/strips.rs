//! Encoding and decoding in horizontal strips, exact but for rounding, for pictures whose full-resolution feature
//! maps don't fit in memory.
//!
//! Attention is global, but all of it lives in the deep stages, on maps of at most 1/64 of the
//! picture's pixels in the published models. Those stages run on the whole map, each block in strips
//! (its attention sums keys and values over all of them before it attends any); the shallow ones
//! are convolutions and pixelwise operations, so a strip of their output depends on a strip of
//! their input with a few rows of halo. Zero padding happens at the picture's border alone: at
//! an inner edge the rows that the padding spoils are those of the halo, which are cut off. Winograd's
//! tiles start at a strip's first row, so their rounding differs from that of the whole map; exact
//! convolutions give the same bits.

use brisk_nn::{Error, Result, Tensor, Trace};

use super::config::{BlockKind, StageConfig};
use super::model::Autoencoder;
use super::pass::Pass;
use crate::rows::{rows_of, strips, widened};

/// Deepest stage from which the global part starts even without attention (f8).
const DEEPEST_SPLIT: usize = 3;
/// Largest map, in bytes, that decoding in strips keeps whole where its stage could be run in strips:
/// a strip's neighbours then cost less.
pub const LARGEST_MAP: usize = 192 << 20;

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
        let picture = Tensor::zeros(shape, latent.dtype())?;
        self.decode_strips_with(latent, rows_per_strip, |row, strip| {
            picture.slice_set(&strip.beside(&picture)?, 1, row)
        })?;
        Ok(picture)
    }

    /// As [`decode_strips`](Self::decode_strips); `sink` gets each strip `[B,rows,W,3]`, where the autoencoder
    /// computes, with the picture row it starts at, from top to bottom.
    ///
    /// # Errors
    /// As [`decode_strips`](Self::decode_strips), and what `sink` returns.
    pub fn decode_strips_with(
        &self,
        latent: &Tensor,
        rows_per_strip: usize,
        sink: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        self.decode_strips_within(latent, rows_per_strip, LARGEST_MAP, sink)
    }

    /// As [`decode_strips_with`](Self::decode_strips_with); a feature map of more than `largest_map`
    /// bytes is kept whole only where attention needs it.
    ///
    /// # Errors
    /// As [`decode_strips_with`](Self::decode_strips_with).
    pub fn decode_strips_within(
        &self,
        latent: &Tensor,
        rows_per_strip: usize,
        largest_map: usize,
        mut sink: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let decoder = self.decoder()?;
        let [batch, height, width, _] = self.check_latent(latent)?;
        check_rows(rows_per_strip)?;
        // A card's blocks over the deep maps, which are small, take them whole.
        let deep_rows = (!self.is_on_card()).then_some(rows_per_strip);
        let mut trace = Trace::none();
        let pass = &mut Pass::new(&mut trace);
        let stages = self.config.decoder.len();
        let map = |stage: usize| {
            let scale = self.ratio() >> stage;
            let values = batch * height * scale * width * scale;
            values * self.config.decoder[stage].channels * size_of::<f32>()
        };
        let deepest = split(&self.config.decoder);
        let split = (0..deepest).find(|stage| map(*stage) <= largest_map);
        let split = split.unwrap_or(deepest);
        let halo = decoder.halo(split).ok_or_else(attention_in_the_way)?;
        let latent = self.brought(&latent.detach())?;
        let global = decoder.enter(&latent, pass)?;
        let global = decoder.run(global, split..stages, deep_rows, pass)?;
        let global = global.detach();

        // Not `1 << split`: the last doubling may belong to the exit.
        let scale = height * self.ratio() / global.dim(1)?;
        let height = global.dim(1)?;
        for strip in strips(height, rows_per_strip.div_ceil(scale)) {
            let mut seen = widened(&strip, halo, height);
            let mut x = rows_of(&global, &seen)?;
            // Rows of the map for each of the strip's own.
            let mut factor = 1;
            for stage in (0..split).rev() {
                x = decoder.run(x, stage..stage + 1, None, pass)?;
                let mut top = seen.start;
                if decoder.doubles(stage) {
                    (top, factor) = (2 * top, 2 * factor);
                }
                // What later stages don't need is left out at once.
                let halo = decoder.halo(stage).ok_or_else(attention_in_the_way)?;
                let own = strip.start * factor..strip.end * factor;
                seen = widened(&own, halo, height * factor);
                x = rows_of(&x, &(seen.start - top..seen.end - top))?;
            }
            let x = decoder.leave(&x, pass)?;
            let first = strip.start * scale - seen.start * (scale / factor);
            let y = rows_of(&x, &(first..first + strip.len() * scale))?;
            sink(strip.start * scale, &y.detach())?;
        }
        Ok(())
    }

    /// As [`encode`](Self::encode) in less memory (on a card in one piece), about `rows_per_strip` rows of picture at a
    /// time (rounded up to what makes one row of the inner map). Not differentiable.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when `rows_per_strip` is 0.
    pub fn encode_strips(&self, picture: &Tensor, rows_per_strip: usize) -> Result<Tensor> {
        let encoder = self.encoder()?;
        let [batch, height, width, _] = self.check_picture(picture)?;
        check_rows(rows_per_strip)?;
        let picture = picture.detach();
        if self.is_on_card() {
            return self.encode(&picture);
        }
        let mut trace = Trace::none();
        let pass = &mut Pass::new(&mut trace);
        let split = split(&self.config.encoder);
        let halo = encoder.halo(split).ok_or_else(attention_in_the_way)?;
        let scale = 1 << split;
        // Whole rows of the inner map, so that resampling keeps its phase.
        let halo = halo.next_multiple_of(scale);
        let rows = rows_per_strip.next_multiple_of(scale);

        let channels = self.config.encoder[split].channels;
        let shape = (batch, height / scale, width / scale, channels);
        let global = Tensor::zeros(shape, picture.dtype())?;
        for strip in strips(height, rows) {
            let seen = widened(&strip, halo, height);
            let x = rows_of(&picture, &seen)?;
            let x = encoder.enter(&x, pass)?;
            let x = encoder.run(x, 0..split, None, pass)?;
            let first = (strip.start - seen.start) / scale;
            let y = rows_of(&x, &(first..first + strip.len() / scale))?;
            global.slice_set(&y.detach(), 1, strip.start / scale)?;
        }
        let stages = split..self.config.encoder.len();
        let x = encoder.run(global, stages, Some(rows_per_strip), pass)?;
        Ok(encoder.leave(&x, pass)?.detach())
    }
}

fn attention_in_the_way() -> Error {
    Error::Config("attention in a stage that strips take as local".into())
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
