//! Clips of motion as a transformer is trained on them: encoded once, with what leads them.

use brisk_media::Picture;
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoder;
use brisk_models::hunyuan_video::transformer::beside;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::families::hunyuan_video::picture::Preparation;

use super::texts::{Prompt, Readers, Tokenizers};
use crate::data::motion::MotionScene;
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::families::video_autoencoder::clips::{self, MotionClip};
use crate::tensors;

/// Clips that are encoded together.
const BATCH: usize = 8;

/// One clip.
pub(crate) struct PooledClip {
    pub scene: MotionScene,
    /// `[F,h,w,C]`, scaled.
    pub latent: Vec<f32>,
    /// That of the first frame by itself, `[1,h,w,C]`, where the transformer is shown it.
    pub given: Vec<f32>,
    /// The first frame as the text encoder sees it, `[N,N,3]`.
    pub pixels: Vec<f32>,
    pub prompt: Prompt,
}

/// All clips of a run.
pub(crate) struct Pool {
    pub clips: Vec<PooledClip>,
    /// Frames, rows, columns and channels of a latent.
    pub shape: [usize; 4],
    /// Side of the picture that the text encoder sees; none where it sees none.
    pub seen: Option<usize>,
    /// The empty prompt.
    pub empty: Prompt,
    /// A black picture as the text encoder sees it.
    black: Vec<f32>,
}

/// What is drawn, and how it is read.
pub(crate) struct Source<'a> {
    pub drawings: &'a Drawings,
    pub seed: u64,
    pub split: Split,
    pub count: usize,
    /// Frames, and width and height in pixels.
    pub frames: usize,
    pub size: usize,
    pub tokenizers: &'a Tokenizers,
    pub readers: &'a Readers,
    /// Pixels of the side that the text encoder sees.
    pub seen: Option<usize>,
}

impl Pool {
    /// Draws and encodes the clips.
    pub fn new(source: &Source, autoencoder: &VideoAutoencoder, control: &Control) -> Result<Self> {
        let config = autoencoder.config();
        let side = source.size / config.spatial_compression_ratio;
        let shape = [
            config.latent_frames(source.frames),
            side,
            side,
            config.latent_channels,
        ];
        control.stage("encoding the clips", Work::Run, source.count);
        let mut clock = StepClock::new(source.count);
        let mut pooled = Vec::with_capacity(source.count);
        for first in (0..source.count).step_by(BATCH) {
            control.check()?;
            let numbers = first as u64..(first + BATCH).min(source.count) as u64;
            let of = (source.seed, source.split);
            let drawn = clips::draw(source.drawings, of, numbers, source.frames, source.size)?;
            let count = drawn.len();
            let latents = latents(autoencoder, &clips::tensor(&drawn)?)?;
            let each = latents.len() / count.max(1);
            let given = match source.seen {
                Some(_) => latents_of_firsts(autoencoder, &drawn)?,
                None => Vec::new(),
            };
            let share = given.len() / count.max(1);
            for (index, clip) in drawn.into_iter().enumerate() {
                pooled.push(PooledClip {
                    latent: latents[index * each..(index + 1) * each].to_vec(),
                    given: given[index * share..(index + 1) * share].to_vec(),
                    pixels: match source.seen {
                        Some(side) => seen_by_text(&clip.frames[0], side)?,
                        None => Vec::new(),
                    },
                    prompt: source
                        .tokenizers
                        .encode(&clip.scene.caption(), source.readers)?,
                    scene: clip.scene,
                });
            }
            clock.steps(count, control);
        }
        let black = Picture::filled(source.size, source.size, [0; 3]);
        Ok(Self {
            clips: pooled,
            shape,
            seen: source.seen,
            empty: source.tokenizers.encode("", source.readers)?,
            black: match source.seen {
                Some(side) => seen_by_text(&black, side)?,
                None => Vec::new(),
            },
        })
    }

    /// Values of a latent.
    pub fn each(&self) -> usize {
        self.shape.iter().product()
    }

    /// Values as a latent `[1,F,h,w,C]`.
    pub fn latent(&self, values: &[f32]) -> Result<Tensor> {
        let [frames, rows, columns, channels] = self.shape;
        Ok(Tensor::from_slice(
            values,
            vec![1, frames, rows, columns, channels],
        )?)
    }

    /// The latent of a clip's first frame `[1,1,h,w,C]`, where the transformer is shown it.
    pub fn given(&self, clip: &PooledClip) -> Result<Option<Tensor>> {
        let [_, rows, columns, channels] = self.shape;
        match self.seen {
            Some(_) => Ok(Some(Tensor::from_slice(
                &clip.given,
                vec![1, 1, rows, columns, channels],
            )?)),
            None => Ok(None),
        }
    }

    /// A latent as the transformer sees it: with the first frame of a clip beside it, where it is shown that.
    pub fn seen(&self, latent: &Tensor, clip: &PooledClip) -> Result<Tensor> {
        Ok(match self.given(clip)? {
            Some(given) => beside(latent, &given)?,
            None => latent.clone(),
        })
    }

    /// What the text encoder sees of a clip, `[1,N,N,3]`: its first frame, or a black picture.
    pub fn pixels(&self, clip: &PooledClip, black: bool) -> Result<Option<Tensor>> {
        let Some(side) = self.seen else {
            return Ok(None);
        };
        let values = if black { &self.black } else { &clip.pixels };
        Ok(Some(Tensor::from_slice(values, (1, side, side, 3))?))
    }
}

/// The latents of clips `[B,F,H,W,3]`, scaled, one after another.
fn latents(autoencoder: &VideoAutoencoder, clips: &Tensor) -> Result<Vec<f32>> {
    let latent = autoencoder.encode(clips, &mut Trace::none())?;
    let scale = autoencoder.config().scaling_factor;
    tensors::values(&latent.affine(scale, 0.0)?)
}

fn latents_of_firsts(autoencoder: &VideoAutoencoder, drawn: &[MotionClip]) -> Result<Vec<f32>> {
    let firsts: Vec<MotionClip> = drawn
        .iter()
        .map(|clip| MotionClip {
            scene: clip.scene.clone(),
            frames: clip.frames[..1].to_vec(),
        })
        .collect();
    latents(autoencoder, &clips::tensor(&firsts)?)
}

fn seen_by_text(frame: &Picture, side: usize) -> Result<Vec<f32>> {
    tensors::values(&Preparation::default().run(frame, side)?)
}
