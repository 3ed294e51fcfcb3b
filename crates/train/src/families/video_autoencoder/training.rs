//! The run: clips are drawn, encoded to a law of latents, drawn from it and decoded again.

use std::path::Path;

use brisk_media::{Picture, psnr};
use brisk_models::hunyuan_video::autoencoder::{
    VideoAutoencoder, VideoAutoencoderConfig, VideoHalves,
};
use brisk_nn::{Tensor, Trace, Weights};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use candle_core::{Device, Tensor as HostTensor};
use serde::Serialize;

use super::clips::{self, MotionClip};
use super::files::frozen;
use super::{VideoAutoencoderFiles, VideoAutoencoderRecipe};
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::eval::MAX_PSNR;
use crate::families::autoencoder::{config_with, scaling_factor, write};
use crate::inputs::Inputs;
use crate::loss::{self, Loss};
use crate::session::{self, Session, check_memory, check_start, write_json};
use crate::terms::Terms;
use crate::{sheet, tensors};

/// The folder of the result.
const VAE: &str = "vae";
/// Seed of the clips that are never trained on.
const HELD_OUT: u64 = 0x636c_6970_7321;
/// Clips that are encoded together.
const BATCH: usize = 8;
/// Clips whose latents are measured.
const MEASURED: u64 = 256;
/// Clips of a sample sheet, and the frames of each that are shown.
const SHOWN: [usize; 2] = [3, 8];
/// The bias of the layer that gives means and logarithms of variances.
const LAW_BIAS: &str = "quant_conv.bias";
/// Of the latents where training begins. Means are a few tenths there: a normal law would hide them, and the decoder
/// would learn for long to see nothing in them.
const START_LOG_VARIANCE: f32 = -6.0;
/// Values that a pixel's activations take in training, at least: those of the outermost level's blocks.
const MAPS: usize = 30;

/// What a finished run measured, all with the weights as written (moving average, rounded to bf16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideoAutoencoderReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters.
    pub parameters: usize,
    /// Mean PSNR of the held-out clips' frames, dB.
    pub held_out_psnr: f64,
    /// The same of their first frames, each encoded by itself.
    pub first_frame_psnr: f64,
    /// Number of held-out clips.
    pub held_out_clips: usize,
    /// 1 / root mean square of the training clips' latents.
    pub scaling_factor: f64,
}

/// Trains the recipe's autoencoder into `out`: `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end
/// `vae/` (diffusers layout, bf16) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
/// `start` is an autoencoder of the recipe's shape to go on from.
///
/// # Errors
/// A start that does not fit the recipe, files that cannot be written, a run that diverges, or one that was asked to
/// stop: its checkpoint is written.
pub fn train_video_autoencoder(
    recipe: &VideoAutoencoderRecipe,
    drawings: &Drawings,
    start: Option<&VideoAutoencoderFiles>,
    out: &Path,
    control: &Control,
) -> Result<VideoAutoencoderReport> {
    recipe.validate()?;
    let config = recipe.autoencoder()?;
    let options = &recipe.training;
    let (size, longest) = (recipe.clip_size, recipe.longest());
    let pixels = size * size * longest * config.block_out_channels[0];
    check_memory(
        config.parameters().iter().sum(),
        options.batch.min(options.shards),
        (pixels * MAPS * 4) as u64,
    )?;
    let _lock = session::claim(out, VAE)?;
    let start = start.and_then(|start| start.opened.stored());
    let weights = Weights::trainable(start.cloned(), options.seed);
    VideoAutoencoder::load(&config, &weights, VideoHalves::Both)?;
    check_start(&weights, start.map(|start| &**start))?;
    let parameters = weights.variables();
    if start.is_none() {
        let bias = parameters.iter().find(|(name, _)| name == LAW_BIAS);
        if let Some((_, bias)) = bias {
            bias.set(&narrow_law(config.latent_channels)?)?;
        }
    }
    let inputs = Inputs::default().start_from(start)?;
    let mut session = Session::open(options, recipe, inputs, parameters, out, control)?;
    let held_out = |count: usize| {
        let numbers = 0..count as u64;
        clips::draw(drawings, (HELD_OUT, Split::HeldOut), numbers, longest, size)
    };
    while !session.is_over() {
        let first = session.step * options.batch as u64;
        let numbers = first..first + options.batch as u64;
        let frames = recipe.length(session.step, &mut session.rng);
        let of = (options.seed, Split::Training);
        let lengths = (longest, frames);
        let batch = session.together(|| clips::draw_parts(drawings, of, numbers, lengths, size))?;
        let side = size / config.spatial_compression_ratio;
        let each = config.latent_frames(frames) * side * side * config.latent_channels;
        let noise = session.rng.normals(batch.len() * each);
        session.update_noting(batch.len(), |part| {
            let noise = &noise[part.start * each..part.end * each];
            loss(recipe, &config, &weights, &batch[part], noise)
        })?;
        let measure = session.is_due(recipe.eval_every);
        let sample = session.is_due(recipe.sample_every);
        if measure || sample {
            let average = frozen(&config, session.ema.arrays(), false)?;
            if measure {
                // An evaluation is a part of an update: it is not left half-way.
                let clips = held_out(recipe.eval_clips)?;
                let psnr = mean_psnr(&average, &clips, &Control::silent())?;
                session.log_measured(&[("psnr", psnr)])?;
            }
            if sample {
                write_sheet(&mut session, &average, &held_out(SHOWN[0])?)?;
            }
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("measuring the latents", Work::Run, 0);
    let model = frozen(&config, session.ema.arrays(), true)?;
    let scaling_factor = scaling_factor(mean_square(&model, recipe, drawings, control)?)?;
    control.stage("measuring the held-out clips", Work::Run, 0);
    let clips = held_out(recipe.final_clips)?;
    let held_out_psnr = mean_psnr(&model, &clips, control)?;
    write_sheet(&mut session, &model, &held_out(SHOWN[0])?)?;
    let firsts: Vec<MotionClip> = clips
        .into_iter()
        .map(|mut clip| {
            clip.frames.truncate(1);
            clip
        })
        .collect();
    let document = config_with(
        &recipe.config,
        Some(VideoAutoencoderConfig::CLASSES[0]),
        &[("scaling_factor", scaling_factor.into())],
    )?;
    let arrays = session.ema.arrays();
    write(arrays, &document, &out.join(VAE))?;
    let report = VideoAutoencoderReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: arrays.iter().map(|array| array.values.len()).sum(),
        held_out_psnr,
        first_frame_psnr: mean_psnr(&model, &firsts, control)?,
        held_out_clips: firsts.len(),
        scaling_factor,
    };
    write_json(&out.join(session::REPORT), &report)?;
    Ok(report)
}

/// The bias of the latents' law where training begins: means of 0, and so little spread that a draw tells of its mean.
fn narrow_law(channels: usize) -> Result<HostTensor> {
    let mut bias = vec![0f32; channels];
    bias.resize(2 * channels, START_LOG_VARIANCE);
    Ok(HostTensor::from_vec(bias, 2 * channels, &Device::Cpu)?)
}

/// The mean loss of some clips: how far they are from what a draw of their latents' law is decoded to, and how far that
/// law is from a normal one. `noise` is what the draw is made with.
fn loss(
    recipe: &VideoAutoencoderRecipe,
    config: &VideoAutoencoderConfig,
    weights: &Weights,
    clips: &[MotionClip],
    noise: &[f32],
) -> Result<(Loss, Terms)> {
    // Layers are cut out of the variables as they are loaded, so every part loads its own.
    let model = VideoAutoencoder::load(config, weights, VideoHalves::Both)?;
    let target = clips::values(clips);
    let law = model.posterior(&clips::tensor(clips)?, &mut Trace::none())?;
    let channels = config.latent_channels;
    let mean = law.narrow(4, 0, channels)?.contiguous()?;
    let log_variance = law.narrow(4, channels, channels)?.contiguous()?;
    let noise = Tensor::from_slice(noise, mean.dims())?;
    let drawn = (&mean + (log_variance.affine(0.5, 0.0)?.exp()? * noise)?)?;
    let decoded = clips::as_pictures(&model.decode(&drawn, &mut Trace::none())?)?;
    let pictures = loss::reconstruction(&decoded, &target, &recipe.loss)?;
    let terms = vec![("reconstruction_loss", pictures.value)];
    if recipe.divergence_weight == 0.0 {
        return Ok((pictures, terms));
    }
    let spread = ((mean.sqr()? + log_variance.exp()?)? - log_variance)?;
    let divergence = spread.affine(0.5, -0.5)?.mean_all()?;
    let total = pictures.plus(&divergence, recipe.divergence_weight)?;
    Ok((total, terms))
}

/// What comes back of clips whose latents are their laws' means.
fn reconstructed(model: &VideoAutoencoder, clips: &[MotionClip]) -> Result<Vec<Picture>> {
    let latent = model.encode(&clips::tensor(clips)?, &mut Trace::none())?;
    clips::pictures(&model.decode(&latent, &mut Trace::none())?)
}

/// Mean over all frames of each one's PSNR, dB.
fn mean_psnr(model: &VideoAutoencoder, clips: &[MotionClip], control: &Control) -> Result<f64> {
    let (mut sum, mut count) = (0f64, 0usize);
    for clips in clips.chunks(BATCH) {
        control.check()?;
        let frames = clips.iter().flat_map(|clip| &clip.frames);
        for (frame, back) in frames.zip(reconstructed(model, clips)?) {
            sum += psnr(frame, &back)?.min(MAX_PSNR);
            count += 1;
        }
    }
    Ok(sum / count.max(1) as f64)
}

/// The mean square of the latents of clips to train on.
fn mean_square(
    model: &VideoAutoencoder,
    recipe: &VideoAutoencoderRecipe,
    drawings: &Drawings,
    control: &Control,
) -> Result<f64> {
    let (mut sum, mut count) = (0f64, 0usize);
    let of = (recipe.training.seed, Split::Training);
    for first in (0..MEASURED).step_by(BATCH) {
        control.check()?;
        let numbers = first..first + BATCH as u64;
        let clips = clips::draw(drawings, of, numbers, recipe.longest(), recipe.clip_size)?;
        let latent = model.encode(&clips::tensor(&clips)?, &mut Trace::none())?;
        let values = tensors::values(&latent)?;
        sum += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        count += values.len();
    }
    Ok(sum / count.max(1) as f64)
}

/// Frames of clips over what comes back of them.
fn write_sheet(
    session: &mut Session,
    model: &VideoAutoencoder,
    clips: &[MotionClip],
) -> Result<()> {
    let back = reconstructed(model, clips)?;
    let mut cells = Vec::new();
    let mut columns = 1;
    for (index, clip) in clips.iter().enumerate() {
        let count = clip.frames.len();
        let back = &back[index * count..(index + 1) * count];
        columns = count.min(SHOWN[1]);
        let places = (0..columns).map(|column| column * (count - 1) / (columns - 1).max(1));
        let places: Vec<usize> = places.collect();
        for (row, caption) in [
            (&clip.frames[..], clip.scene.caption()),
            (back, String::new()),
        ] {
            let first = places.first().copied();
            cells.extend(places.iter().map(|place| {
                let named = Some(*place) == first;
                let caption = if named {
                    caption.clone()
                } else {
                    String::new()
                };
                (row[*place].clone(), caption)
            }));
        }
    }
    let path = session.sample_path()?;
    sheet::write(&path, &cells, columns)?;
    session.sample_written(path);
    Ok(())
}
