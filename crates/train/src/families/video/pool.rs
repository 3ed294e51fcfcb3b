//! Clips of motion as a transformer is trained on them: encoded once, with what leads them.

use brisk_media::Picture;
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoder;
use brisk_models::hunyuan_video::transformer::beside;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::families::hunyuan_video::picture::Preparation;

use super::FirstFrameNoise;
use super::texts::{Prompt, Readers, Tokenizers};
use crate::data::motion::MotionScene;
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::families::video_autoencoder::clips::{self, MotionClip};
use crate::rng::Rng;
use crate::tensors;

/// Told from other draws of a run's seed.
const NOISE: u64 = 0x6e6f_6973_6521;
/// Clips that are encoded together.
const BATCH: usize = 8;

/// One clip.
pub(crate) struct PooledClip {
    pub scene: MotionScene,
    /// `[F,h,w,C]`, scaled.
    pub latent: Vec<f32>,
    /// That of the first frame by itself, `[1,h,w,C]`, where the transformer is shown it.
    pub given: Vec<f32>,
    /// The same of the frame with noise, in some versions.
    pub noisy: Vec<Vec<f32>>,
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
    /// Noise on the frames that the transformer is shown.
    pub noise: Option<FirstFrameNoise>,
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
            let noisy = noisy_firsts(autoencoder, &drawn, source, first as u64)?;
            for (index, clip) in drawn.into_iter().enumerate() {
                pooled.push(PooledClip {
                    latent: latents[index * each..(index + 1) * each].to_vec(),
                    given: given[index * share..(index + 1) * share].to_vec(),
                    noisy: noisy
                        .iter()
                        .map(|all| all[index * share..(index + 1) * share].to_vec())
                        .collect(),
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
        self.frame(&clip.given)
    }

    fn frame(&self, values: &[f32]) -> Result<Option<Tensor>> {
        let [_, rows, columns, channels] = self.shape;
        let shape = vec![1, 1, rows, columns, channels];
        match self.seen {
            Some(_) => Ok(Some(Tensor::from_slice(values, shape)?)),
            None => Ok(None),
        }
    }

    /// A latent as the transformer sees it: with the first frame of a clip beside it, where it is shown that; `version` is
    /// one of those with noise.
    pub fn seen(
        &self,
        latent: &Tensor,
        clip: &PooledClip,
        version: Option<usize>,
    ) -> Result<Tensor> {
        let noisy = version.and_then(|version| clip.noisy.get(version));
        Ok(match self.frame(noisy.unwrap_or(&clip.given))? {
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
    latents(autoencoder, &clips::tensor(&firsts(drawn))?)
}

fn firsts(drawn: &[MotionClip]) -> Vec<MotionClip> {
    let alone = drawn.iter().map(|clip| MotionClip {
        scene: clip.scene.clone(),
        frames: clip.frames[..1].to_vec(),
    });
    alone.collect()
}

/// The latents of first frames in every version of the source's noise; `first` is the number of the first clip.
fn noisy_firsts(
    autoencoder: &VideoAutoencoder,
    drawn: &[MotionClip],
    source: &Source,
    first: u64,
) -> Result<Vec<Vec<f32>>> {
    let Some(noise) = source.noise else {
        return Ok(Vec::new());
    };
    let frames = clips::tensor(&firsts(drawn))?;
    let clean = tensors::values(&frames)?;
    let each = clean.len() / drawn.len().max(1);
    let versions = (0..noise.versions).map(|version| {
        let values = clean
            .chunks(each.max(1))
            .enumerate()
            .flat_map(|(index, pixels)| {
                let number = (first + index as u64) * noise.versions as u64 + version as u64;
                let mut rng = Rng::stream(source.seed ^ NOISE, number);
                let scale =
                    (noise.log_mean + noise.log_deviation * rng.normal_pair().0).exp() as f32;
                let normals = rng.normals(pixels.len());
                let pairs = pixels.iter().zip(normals);
                pairs
                    .map(move |(pixel, normal)| pixel + scale * normal)
                    .collect::<Vec<_>>()
            });
        let noisy = Tensor::from_vec(values.collect(), frames.dims().to_vec())?;
        latents(autoencoder, &noisy)
    });
    versions.collect()
}

fn seen_by_text(frame: &Picture, side: usize) -> Result<Vec<f32>> {
    tensors::values(&Preparation::default().run(frame, side)?)
}
