//! Clips of motion as a transformer is trained on them: encoded once, with what leads them.

use brisk_media::Picture;
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoder;
use brisk_models::hunyuan_video::transformer::beside;
use brisk_nn::Tensor;
use brisk_pipelines::Control;
use brisk_pipelines::vision_preparation::Preparation;
use rayon::prelude::*;

use super::FirstFrameNoise;
use super::encodings::{Encodings, Keep};
use super::texts::{Prompt, Readers, Tokenizers};
use crate::data::motion::MotionScene;
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::families::video_autoencoder::clips::MotionClip;
use crate::tensors;

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
    /// Draws and encodes the clips, which are kept where that is said.
    ///
    /// # Errors
    /// A drawing that cannot be rendered, a cancellation, or a file that cannot be written.
    pub fn new(
        source: &Source,
        autoencoder: &VideoAutoencoder,
        keep: Option<Keep>,
        control: &Control,
    ) -> Result<Self> {
        let config = autoencoder.config();
        let side = source.size / config.spatial_compression_ratio;
        let frames = config.latent_frames(source.frames);
        let shape = [frames, side, side, config.latent_channels];
        let firsts = firsts(source)?;
        let encoded = Encodings::of(source, &firsts, autoencoder, shape, keep, control)?;
        let [each, share] = [frames, 1].map(|frames| frames * side * side * config.latent_channels);
        let of = |values: &[f32], index: usize, each: usize| match values.is_empty() {
            true => Vec::new(),
            false => values[index * each..(index + 1) * each].to_vec(),
        };
        let pooled = firsts.into_iter().enumerate().map(|(index, clip)| {
            let caption = clip.scene.caption();
            let noisy = encoded.noisy.iter();
            Ok(PooledClip {
                latent: of(&encoded.latents, index, each),
                given: of(&encoded.given, index, share),
                noisy: noisy.map(|all| of(all, index, share)).collect(),
                pixels: match source.seen {
                    Some(side) => seen_by_text(&clip.frames[0], side)?,
                    None => Vec::new(),
                },
                prompt: source.tokenizers.encode(&caption, source.readers)?,
                scene: clip.scene,
            })
        });
        let pooled = pooled.collect::<Result<_>>()?;
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

/// The clips with their first frames alone.
fn firsts(source: &Source) -> Result<Vec<MotionClip>> {
    (0..source.count as u64)
        .into_par_iter()
        .map(|number| {
            let scene = MotionScene::draw(source.seed, number, source.split);
            let frames = scene.render_part(source.drawings, source.frames, 0..1, source.size)?;
            Ok(MotionClip { scene, frames })
        })
        .collect()
}

fn seen_by_text(frame: &Picture, side: usize) -> Result<Vec<f32>> {
    tensors::values(&Preparation::default().run(frame, side)?)
}
