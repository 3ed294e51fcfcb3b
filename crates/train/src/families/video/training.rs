//! The run.

use std::path::Path;

use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use serde::Serialize;

use super::configs::{Configs, check_autoencoder};
use super::encodings::Keep;
use super::export;
use super::flow::{Draw, flow_loss};
use super::networks::{self, Models};
use super::pool::{Pool, Source};
use super::sample::{Sampling, draw, measured, write_sheet};
use super::texts::{Readers, Tokenizers, vision_side};
use super::{VideoRecipe, VideoStart};
use crate::data::scenes::{Drawings, Split};
use crate::error::Result;
use crate::families::image::MODEL;
use crate::families::part_weights::PartWeights;
use crate::families::video_autoencoder::VideoAutoencoderFiles;
use crate::families::video_autoencoder::clips::require_size;
use crate::inputs::Inputs;
use crate::log::mean_of_last_tenth;
use crate::pictures::Order;
use crate::session::{self, LOG, REPORT, Session, check_memory, write_json};

/// Seed of the clips that are never trained on.
pub(crate) const HELD_OUT: u64 = 0x6d6f_7469_6f6e_2121;

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideoReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the transformer.
    pub transformer_parameters: usize,
    /// Parameters of the text encoder.
    pub text_encoder_parameters: usize,
    /// Parameters of the encoder of texts as a whole.
    pub text_encoder_2_parameters: usize,
    /// Bytes of the optimiser's state.
    pub optimiser_bytes: u64,
    /// Clips that were trained on.
    pub clips: usize,
    /// Held-out clips, of pairs of object and motion that no clip of training has.
    pub held_out_clips: usize,
    /// Share of them that show their motion, as they are drawn by the weights as written.
    pub motion_right: f64,
    /// Fréchet distance of them from the true clips, by what the checker of scenes sees.
    pub frechet_distance: f64,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// Trains the recipe's model of clips into `out`, from scratch or from another one, whose tokenizers it keeps and which may
/// make clips from text alone where the recipe's begins with a frame: `training_log.jsonl`, `samples/`, `checkpoints/`, and
/// at the end `model/` (complete diffusers layout, bf16, with the autoencoder as it is stored) and `report.json`.
/// Continues when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// An autoencoder or a start that does not fit the recipe, files that cannot be read or written, a run that diverges, or
/// one that was asked to stop: its checkpoint is written.
pub fn train_video(
    recipe: &VideoRecipe,
    drawings: &Drawings,
    vae: &VideoAutoencoderFiles,
    start: Option<&VideoStart>,
    out: &Path,
    control: &Control,
) -> Result<VideoReport> {
    recipe.validate()?;
    require_size(recipe.clip_size, vae.config().spatial_compression_ratio)?;
    let options = &recipe.training;
    let tokenizers = match start {
        Some(start) => start.tokenizers()?,
        None => Tokenizers::train(recipe.vocabulary)?,
    };
    let configs = Configs::new(recipe, &tokenizers)?;
    check_autoencoder(&configs.transformer, vae.config(), recipe.clip_size)?;
    let start = start
        .map(|start| start.fitted(&configs, recipe.new_channels, options.seed))
        .transpose()?;
    let _lock = session::claim(out, MODEL)?;
    let shown = configs.transformer.image_condition_type.is_some();
    let readers = Readers::new(&configs.text, shown, configs.pooled.max_position_embeddings);
    let source = Source {
        drawings,
        seed: options.seed,
        split: Split::Training,
        count: recipe.clips,
        frames: recipe.frames,
        size: recipe.clip_size,
        tokenizers: &tokenizers,
        readers: &readers,
        seen: vision_side(&configs.text, shown),
        noise: recipe.first_frame_noise,
    };
    let pixels = recipe.clip_size * recipe.clip_size * recipe.frames;
    check_memory(configs.parameters(), recipe.clips, (pixels / 2) as u64)?;
    let weights = PartWeights::new(start.as_ref().map(VideoStart::sources), options.seed);
    Models::trainable(&configs, &weights)?;
    networks::check(&weights, start.as_ref())?;
    let autoencoder = vae.load()?;
    let clips_of = Inputs::default().video_autoencoder(&vae.opened)?;
    let keep = Keep {
        out,
        inputs: &clips_of,
    };
    let pool = Pool::new(&source, &autoencoder, Some(keep), control)?;
    let held_out = |count: usize| {
        let source = Source {
            seed: HELD_OUT,
            split: Split::HeldOut,
            count,
            noise: None,
            ..source
        };
        Pool::new(&source, &autoencoder, None, &Control::silent())
    };
    let sources = start.as_ref().map(VideoStart::sources);
    let inputs = clips_of.start(sources.as_ref().map_or(&[], |parts| &parts[..]))?;
    let mut order = Order::new((0..pool.clips.len()).collect(), options.seed)?;
    let mut session = Session::open(options, recipe, inputs, weights.variables(), out, control)?;
    let sampling = Sampling {
        steps: recipe.sample_steps,
        shift: recipe.flow_shift,
        guidance: recipe.guidance,
        seed: options.seed,
    };
    let few = held_out(recipe.eval_clips)?;
    let drawn = |session: &Session, pool: &Pool, rounded: bool, control: &Control| {
        let models = Models::frozen(&configs, session.ema.arrays(), rounded)?;
        let of = &models.transformer;
        draw(&models, of, &autoencoder, pool, &sampling, control)
    };
    while !session.is_over() {
        let clips = order.batch(session.step, options.batch);
        let rng = &mut session.rng;
        let draws = clips
            .into_iter()
            .map(|clip| Draw::new(recipe, rng, clip, pool.each()));
        let draws: Vec<Draw> = draws.collect();
        session.update(draws.len(), |part| {
            // Layers may be cut out of the variables as they are loaded, so every part loads its own.
            let models = Models::trainable(&configs, &weights)?;
            flow_loss(&models, &pool, recipe.target, &draws, part)
        })?;
        if session.is_due(recipe.eval_every) {
            // An evaluation is a part of an update: it is not left half-way.
            let clips = drawn(&session, &few, false, &Control::silent())?;
            session.log_measured(&measured(&source, &few, &clips)?)?;
            write_sheet(&mut session, &few, &clips)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("measuring held-out clips", Work::Run, 0);
    let many = held_out(recipe.final_clips)?;
    let clips = drawn(&session, &many, true, control)?;
    write_sheet(&mut session, &many, &clips)?;
    let [(_, motion_right), (_, frechet_distance)] = measured(&source, &many, &clips)?;
    control.stage("writing the model", Work::Run, 0);
    let counts = export::write(
        &export::Pieces {
            drawings,
            arrays: session.ema.arrays(),
            documents: &configs.documents,
            tokenizers: &tokenizers,
            vae,
            is_shown: shown,
            defaults: export::Defaults {
                shift: recipe.flow_shift,
                steps: recipe.sample_steps,
                guidance: recipe.guidance,
                frames: recipe.frames,
                size: recipe.clip_size,
            },
        },
        out,
    )?;
    let report = VideoReport {
        steps: session.step,
        seconds: session.seconds(),
        transformer_parameters: counts[0],
        text_encoder_parameters: counts[1],
        text_encoder_2_parameters: counts[2],
        optimiser_bytes: session.optimiser_bytes(),
        clips: pool.clips.len(),
        held_out_clips: clips.len(),
        motion_right,
        frechet_distance,
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}
