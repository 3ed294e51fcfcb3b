//! Decoding in pieces of frames, in less memory: as the whole at once, but for the rounding of fast convolutions.
//!
//! A norm's statistics span the clip, so each layer runs over all of it before the next. But a frame of a causal
//! convolution needs three frames of its input, and a strip of it a row more on each side. So a map is held frame by
//! frame, what lies between two maps (the norm's result, its activation, borders) exists for one strip only, a block's
//! first map is released frame by frame, from the last on, as the second takes its place, and of a finer map only
//! the coarse one is read. Two maps at the finest level are the most that is held.

use std::ops::Range;

use brisk_nn::ops::{self, GroupFactors};
use brisk_nn::{Conv3d, Tensor, Trace, check_finite};

use super::VideoAutoencoder;
use super::blocks::{ResBlock, source_frame};
use crate::rows::{rows_of, strips};
use crate::{Error, Result};

/// Rows of a frame, by the frame's number.
type Rows<'a> = dyn Fn(usize, &Range<usize>) -> Result<Tensor> + 'a;

/// Rows that are added to a result.
type Added<'a> = dyn Fn(&Range<usize>) -> Result<Tensor> + 'a;

/// Size of a map, and how it is cut.
#[derive(Clone, Copy)]
struct Cut {
    height: usize,
    rows: usize,
}

impl VideoAutoencoder {
    /// As [`Self::decode`] of one latent `[1,f,h,w,C]`, in strips of about `rows` rows of pixels; `sink` gets each frame
    /// `[1,H,W,colours]` with its number, in order. Not differentiable.
    ///
    /// # Errors
    /// As [`Self::decode`], strips of no rows, several latents, or what `sink` returns.
    pub fn decode_pieces(
        &self,
        latent: &Tensor,
        rows: usize,
        mut sink: impl FnMut(usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let decoder = self.decoder()?;
        if rows == 0 || latent.dim(0)? != 1 {
            return Err(Error::Config(format!(
                "{} latents in strips of {rows} rows; expected one latent, and at least one row",
                latent.dim(0)?
            )));
        }
        let mut frames = {
            let x = self.enter(&latent.detach(), &mut Trace::none())?;
            frames_of(&x.detach())?
        };
        for (index, level) in decoder.levels.iter().enumerate() {
            for block in &level.blocks {
                frames = through(block, frames, rows)?;
            }
            if let Some((conv, steps)) = &level.resampling {
                frames = finer(conv, &frames, *steps, rows)?;
            }
            for frame in &frames {
                check_finite(frame, "decoder", &format!("up_blocks.{index}"))?;
            }
        }
        let factors = decoder.norm_out.of_parts(&frames)?;
        let cut = Cut::of(&frames, rows)?;
        for frame in 0..frames.len() {
            let seen = |at: usize, rows: &Range<usize>| activated(&factors, &frames[at], rows);
            let picture = convolved(&decoder.conv_out, &seen, frame, cut, None)?;
            check_finite(&picture, "decoder", "conv_out")?;
            sink(frame, picture)?;
        }
        Ok(())
    }
}

impl Cut {
    fn of(frames: &[Tensor], rows: usize) -> Result<Self> {
        let height = match frames.first() {
            Some(frame) => frame.dim(1)?,
            None => 0,
        };
        Ok(Self { height, rows })
    }
}

/// The frames of a clip `[1,F,h,w,C]`, each `[1,h,w,C]`.
fn frames_of(clip: &Tensor) -> Result<Vec<Tensor>> {
    let frame = |index: usize| clip.narrow(1, index, 1)?.squeeze(1)?.contiguous();
    (0..clip.dim(1)?).map(frame).collect()
}

/// Rows of a frame behind a norm and SiLU.
fn activated(factors: &GroupFactors, frame: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    ops::silu(&factors.apply(&rows_of(frame, rows)?)?)
}

/// A frame of a 3×3×3 convolution, and what is added to it.
fn convolved(
    conv: &Conv3d,
    seen: &Rows,
    frame: usize,
    cut: Cut,
    added: Option<&Added>,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    for own in strips(cut.height, cut.rows) {
        let rows = own.start.saturating_sub(1)..(own.end + 1).min(cut.height);
        let bordered = |at: usize| {
            let x = seen(at, &rows)?;
            let (top, bottom) = (own.start == 0, own.end == cut.height);
            let x = ops::repeat_edges(&x, 1, usize::from(top), usize::from(bottom))?;
            ops::repeat_edges(&x, 2, 1, 1)
        };
        // Before the clip stands its first frame.
        let now = bordered(frame)?;
        let before = match frame {
            0 => now.clone(),
            _ => bordered(frame - 1)?,
        };
        let first = match frame {
            0 | 1 => before.clone(),
            _ => bordered(frame - 2)?,
        };
        let mut y = conv.forward_frame(&[first, before, now])?;
        if let Some(added) = added {
            y = (y + added(&own)?)?;
        }
        parts.push(y);
    }
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Tensor::cat(&parts, 1),
    }
}

/// A residual block over all frames.
fn through(block: &ResBlock, mut frames: Vec<Tensor>, rows: usize) -> Result<Vec<Tensor>> {
    let cut = Cut::of(&frames, rows)?;
    let factors = block.norms[0].of_parts(&frames)?;
    let seen = |at: usize, rows: &Range<usize>| activated(&factors, &frames[at], rows);
    let inner = (0..frames.len()).map(|frame| convolved(&block.convs[0], &seen, frame, cut, None));
    let mut inner = inner.collect::<Result<Vec<_>>>()?;
    let factors = block.norms[1].of_parts(&inner)?;
    // From the last on: no earlier frame sees what is released.
    for frame in (0..frames.len()).rev() {
        let seen = |at: usize, rows: &Range<usize>| activated(&factors, &inner[at], rows);
        let own = &frames[frame];
        let added = |rows: &Range<usize>| {
            let own = rows_of(own, rows)?;
            match &block.shortcut {
                Some(shortcut) => shortcut.forward_frame(&[own]),
                None => Ok(own),
            }
        };
        let y = convolved(&block.convs[1], &seen, frame, cut, Some(&added))?;
        frames[frame] = y;
        inner.truncate(frame);
    }
    Ok(frames)
}

/// A finer map, of which only the coarse one is held.
fn finer(
    conv: &Conv3d,
    frames: &[Tensor],
    [time, space]: [usize; 2],
    rows: usize,
) -> Result<Vec<Tensor>> {
    let coarse = Cut::of(frames, rows)?.height;
    let cut = Cut {
        height: coarse * space,
        rows,
    };
    let seen = |at: usize, rows: &Range<usize>| {
        let frame = &frames[source_frame(at, time)];
        if space == 1 {
            return rows_of(frame, rows);
        }
        let own = rows.start / 2..rows.end.div_ceil(2);
        let x = ops::upsample_nearest2(&rows_of(frame, &own)?)?;
        let start = rows.start - 2 * own.start;
        rows_of(&x, &(start..start + rows.len()))
    };
    let count = (frames.len() - 1) * time + 1;
    (0..count)
        .map(|frame| convolved(conv, &seen, frame, cut, None))
        .collect()
}
