//! Clips of motion as tensors.

use std::ops::Range;

use brisk_media::Picture;
use brisk_nn::Tensor;
use rayon::prelude::*;

use crate::data::motion::MotionScene;
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::pictures::{signed, to_pictures};
use crate::recipe::require;
use crate::rng::Rng;

/// Most frames of a clip to train on.
pub(crate) const MAX_FRAMES: usize = 257;
/// Widths and heights of clips to train on, in pixels.
const SIZES: std::ops::RangeInclusive<usize> = 8..=512;
/// Frames that a latent stands for, but for the first.
const GROUP: usize = 4;
/// Told from other draws of a run's seed.
const PART: u64 = 0x7061_7274_7321;

/// A clip with what it shows.
#[derive(Debug, Clone)]
pub(crate) struct MotionClip {
    pub scene: MotionScene,
    pub frames: Vec<Picture>,
}

/// Refuses a number of frames that no latent stands for.
pub(crate) fn require_frames(key: &str, frames: usize) -> Result<()> {
    let fits = frames % GROUP == 1 && frames <= MAX_FRAMES;
    let expected = format!("one more than a multiple of {GROUP}, up to {MAX_FRAMES}");
    require(fits, key, frames, &expected)
}

/// Refuses a size that an autoencoder of this ratio does not divide.
pub(crate) fn require_size(size: usize, ratio: usize) -> Result<()> {
    require(
        SIZES.contains(&size) && size.is_multiple_of(ratio),
        "clip_size",
        size,
        &format!(
            "{} to {}, a multiple of the autoencoder's {ratio}",
            SIZES.start(),
            SIZES.end()
        ),
    )
}

/// The clips of a seed at these numbers, drawn side by side on the calling threads.
pub(crate) fn draw(
    drawings: &Drawings,
    of: (u64, Split),
    numbers: Range<u64>,
    frames: usize,
    size: usize,
) -> Result<Vec<MotionClip>> {
    draw_parts(drawings, of, numbers, (frames, frames), size)
}

/// As [`draw`], of each clip of `longest` frames only so many in a row, by lot which.
pub(crate) fn draw_parts(
    drawings: &Drawings,
    (seed, split): (u64, Split),
    numbers: Range<u64>,
    (longest, frames): (usize, usize),
    size: usize,
) -> Result<Vec<MotionClip>> {
    numbers
        .into_par_iter()
        .map(|number| {
            let scene = MotionScene::draw(seed, number, split);
            let first = Rng::stream(seed ^ PART, number).below(longest - frames + 1);
            let part = first..first + frames;
            let frames = scene.render_part(drawings, longest, part, size)?;
            Ok(MotionClip { scene, frames })
        })
        .collect()
}

/// The values of all frames of some clips in −1..1, clip by clip, channels last.
pub(crate) fn values(clips: &[MotionClip]) -> Vec<f32> {
    let frames = clips.iter().flat_map(|clip| &clip.frames);
    frames.flat_map(signed).collect()
}

/// Clips of one shape as `[B,F,H,W,3]`.
pub(crate) fn tensor(clips: &[MotionClip]) -> Result<Tensor> {
    let frames = clips.first().map_or(&[][..], |clip| &clip.frames);
    let (height, width) = frames
        .first()
        .map_or((0, 0), |frame| (frame.height, frame.width));
    let shape = vec![clips.len(), frames.len(), height, width, 3];
    Ok(Tensor::from_vec(values(clips), shape)?)
}

/// The frames `[B,F,H,W,3]` of clips as pictures, one after another.
pub(crate) fn pictures(clips: &Tensor) -> Result<Vec<Picture>> {
    to_pictures(&as_pictures(clips)?)
}

/// `[B,F,H,W,C]` to `[B·F,H,W,C]`.
pub(crate) fn as_pictures(clips: &Tensor) -> Result<Tensor> {
    let dims = clips.dims();
    let shape = match *dims {
        [batch, frames, height, width, channels] => (batch * frames, height, width, channels),
        _ => clips.dims4()?,
    };
    Ok(clips.reshape(shape)?)
}
