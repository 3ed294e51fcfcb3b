//! Clips of a model in training, by the loop of inference, and how many show what they should.

use brisk_media::Picture;
use brisk_models::hunyuan_video::autoencoder::VideoAutoencoder;
use brisk_models::hunyuan_video::transformer::{VideoSampler, VideoTransformer, video_sigmas};
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::families::hunyuan_video::picture::beginning;
use rayon::prelude::*;

use super::networks::Models;
use super::pool::{Pool, PooledClip, Source};
use crate::data::motion::judge;
use crate::error::Result;
use crate::eval::video::clip_distance;
use crate::families::video_autoencoder::clips;
use crate::rng::Rng;
use crate::session::Session;
use crate::sheet;

/// Clips of a sheet, and frames of each that are shown.
const SHOWN: [usize; 2] = [8, 6];

/// How clips are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    pub steps: usize,
    pub shift: f64,
    /// Strength of guidance; 1: none.
    pub guidance: f64,
    pub seed: u64,
}

/// The frames of the clips of a pool as a model draws them.
pub(crate) fn draw(
    models: &Models,
    transformer: &VideoTransformer,
    autoencoder: &VideoAutoencoder,
    pool: &Pool,
    sampling: &Sampling,
    control: &Control,
) -> Result<Vec<Vec<Picture>>> {
    let clips = pool.clips.par_iter().enumerate();
    let drawn = clips.map(|(index, clip)| {
        control.check()?;
        let noise = Rng::stream(sampling.seed, index as u64).normals(pool.each());
        let latent = walk(models, transformer, pool, clip, &noise, sampling)?;
        let scale = autoencoder.config().scaling_factor.recip();
        let decoded = autoencoder.decode(&latent.affine(scale, 0.0)?, &mut Trace::none())?;
        clips::pictures(&decoded)
    });
    drawn.collect()
}

/// From noise to a latent.
fn walk(
    models: &Models,
    transformer: &VideoTransformer,
    pool: &Pool,
    clip: &PooledClip,
    noise: &[f32],
    sampling: &Sampling,
) -> Result<Tensor> {
    let pixels = |black: bool| pool.pixels(clip, black);
    let by = models.conditioning(&clip.prompt, pixels(false)?.as_ref())?;
    let strength = sampling.guidance as f32;
    let against = match strength == 1.0 {
        true => None,
        false => Some(models.conditioning(&pool.empty, pixels(true)?.as_ref())?),
    };
    let given = pool.given(clip)?;
    let sampler = VideoSampler::new(
        transformer,
        &by,
        against.as_ref().map(|against| (against, strength)),
        given.as_ref(),
        video_sigmas(sampling.steps, sampling.shift),
    )?;
    let mut latent = beginning(&pool.latent(noise)?, given.as_ref())?;
    for step in 0..sampler.steps() {
        latent = sampler.step(step, &latent, &mut Trace::none())?;
    }
    Ok(latent)
}

/// Share of the clips that show the motion of their scene.
pub(crate) fn motion_right(pool: &Pool, drawn: &[Vec<Picture>]) -> f64 {
    let pairs = pool.clips.iter().zip(drawn);
    let right = pairs.filter(|(clip, frames)| judge(frames).shows(&clip.scene.caption()));
    right.count() as f64 / drawn.len().max(1) as f64
}

/// What an evaluation logs of clips that were drawn for a pool of this source: the share that shows its motion, and the
/// distance from the true clips.
pub(crate) fn measured(
    source: &Source,
    pool: &Pool,
    drawn: &[Vec<Picture>],
) -> Result<[(&'static str, f64); 2]> {
    let scenes = pool.clips.iter().map(|clip| &clip.scene);
    let truths = scenes.map(|scene| scene.render(source.drawings, source.frames, source.size));
    let truths = truths.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok([
        ("motion_right", motion_right(pool, drawn)),
        ("frechet_distance", clip_distance(drawn, &truths)?),
    ])
}

/// Writes some frames of the first clips.
pub(crate) fn write_sheet(
    session: &mut Session,
    pool: &Pool,
    drawn: &[Vec<Picture>],
) -> Result<()> {
    let [shown, columns] = SHOWN;
    let mut cells = Vec::new();
    for (clip, frames) in pool.clips.iter().zip(drawn).take(shown) {
        for column in 0..columns {
            let at = column * (frames.len() - 1) / (columns - 1);
            let caption = match column {
                0 => clip.scene.caption(),
                _ => String::new(),
            };
            cells.push((frames[at].clone(), caption));
        }
    }
    let path = session.sample_path()?;
    sheet::write(&path, &cells, columns)?;
    session.sample_written(path);
    Ok(())
}
