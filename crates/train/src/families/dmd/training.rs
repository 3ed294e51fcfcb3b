//! The run.

use std::path::Path;

use brisk_models::hunyuan_video::transformer::{VideoConditioning, VideoTransformer};
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_store::ModelFolder;
use serde::Serialize;

use super::DmdRecipe;
use super::draws::Draw;
use super::networks::Networks;
use super::objective::{Heads, Led};
use super::recipe::Turn;
use crate::data::scenes::{Drawings, Split};
use crate::error::{FileContext, Result};
use crate::families::image::MODEL;
use crate::families::image::export::{copy, copy_parts, write_part};
use crate::families::video::VideoStart;
use crate::families::video::encodings::Keep;
use crate::families::video::export::{Defaults, write_defaults, write_evaluation};
use crate::families::video::networks::{Models, TRANSFORMER};
use crate::families::video::pool::{Pool, Source};
use crate::families::video::sample::{Sampling, draw, measured, write_sheet};
use crate::families::video::texts::vision_side;
use crate::families::video::training::HELD_OUT;
use crate::families::video_autoencoder::VideoAutoencoderFiles;
use crate::families::video_autoencoder::clips::require_size;
use crate::inputs::Inputs;
use crate::log::mean_of_last_tenth;
use crate::pictures::Order;
use crate::session::{self, LOG, REPORT, Session, check_memory, write_json};
use crate::tensors::NamedArray;

/// What of the teacher is the student's too.
const SHARED: [&str; 8] = [
    "text_encoder/",
    "text_encoder_2/",
    "tokenizer/",
    "tokenizer_2/",
    "image_processor/",
    "vae/",
    "transformer/config.json",
    "model_index.json",
];

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DmdReport {
    /// Finished updates, of student and critic.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Parameters of the student.
    pub transformer_parameters: usize,
    /// Parameters that the critic has of its own.
    pub critic_parameters: usize,
    /// Clips that were trained on.
    pub clips: usize,
    /// Held-out clips, of pairs of object and motion that no clip of training has.
    pub held_out_clips: usize,
    /// Share of them that show their motion, drawn in the student's steps by the weights as written.
    pub motion_right: f64,
    /// Fréchet distance of them from the true clips, by what the checker of scenes sees.
    pub frechet_distance: f64,
    /// The share by the teacher with its guidance, in as many steps.
    pub teacher_motion_right: f64,
    /// The distance of these.
    pub teacher_frechet_distance: f64,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// Distils the model of clips in `teacher` into one of a few steps by the recipe, into `out`: `training_log.jsonl`,
/// `samples/`, `checkpoints/`, and at the end `model/` (diffusers layout, bf16, with the teacher's text encoders,
/// tokenizers and autoencoder) and `report.json`. Continues when `out` holds a checkpoint of the same recipe.
///
/// # Errors
/// A teacher that does not fit the recipe, files that cannot be read or written, a run that diverges, or one that was asked
/// to stop: its checkpoint is written.
pub fn distill_video(
    recipe: &DmdRecipe,
    drawings: &Drawings,
    teacher: &ModelFolder,
    variant: Option<&str>,
    out: &Path,
    control: &Control,
) -> Result<DmdReport> {
    recipe.validate()?;
    let options = &recipe.training;
    let start = VideoStart::open(teacher, variant)?;
    let vae = VideoAutoencoderFiles::open(teacher, variant)?;
    start.check_few_steps(vae.config(), recipe.clip_size)?;
    require_size(recipe.clip_size, vae.config().spatial_compression_ratio)?;
    let _lock = session::claim(out, MODEL)?;
    let pixels = recipe.clip_size * recipe.clip_size * recipe.frames;
    let parameters = 3 * start.transformer_config.parameters();
    check_memory(parameters, recipe.clips, (pixels / 2) as u64)?;
    let autoencoder = vae.load()?;
    let models = start.models()?;
    let (tokenizers, readers) = (start.tokenizers()?, start.readers());
    let source = Source {
        drawings,
        seed: options.seed,
        split: Split::Training,
        count: recipe.clips,
        frames: recipe.frames,
        size: recipe.clip_size,
        tokenizers: &tokenizers,
        readers: &readers,
        seen: vision_side(&start.text_config, start.is_shown()),
        noise: None,
    };
    let sources = start.sources();
    let networks = Networks::new(&start.transformer_config, &sources[2], recipe)?;
    let clips_of = Inputs::default().video_autoencoder(&vae.opened)?;
    let keep = Keep {
        out,
        inputs: &clips_of,
    };
    let pool = Pool::new(&source, &autoencoder, Some(keep), control)?;
    control.stage("reading the captions", Work::Run, 0);
    let (by, against) = conditionings(&models, &pool, control)?;
    let led = Led {
        recipe,
        pool: &pool,
        by: &by,
        against: &against,
    };
    let held_out = |count: usize| {
        let source = Source {
            seed: HELD_OUT,
            split: Split::HeldOut,
            count,
            ..source
        };
        Pool::new(&source, &autoencoder, None, &Control::silent())
    };
    let inputs = clips_of.start(&sources)?;
    let mut order = Order::new((0..pool.clips.len()).collect(), options.seed)?;
    let variables = networks.variables();
    let mut session = Session::open(options, recipe, inputs, variables, out, control)?;
    networks.renew()?;
    let few = held_out(recipe.eval_clips)?;
    let drawn = |transformer: &VideoTransformer, pool: &Pool, guidance: f64, control: &Control| {
        let sampling = Sampling {
            steps: recipe.steps,
            shift: recipe.flow_shift,
            guidance,
            seed: options.seed,
        };
        draw(&models, transformer, &autoencoder, pool, &sampling, control)
    };
    while !session.is_over() {
        let clips = order.batch(session.step, options.batch);
        update(&mut session, &networks, &led, clips)?;
        if session.is_due(recipe.eval_every) {
            let student = networks.frozen(session.ema.arrays(), false)?;
            // An evaluation is a part of an update: it is not left half-way.
            let clips = drawn(&student, &few, 1.0, &Control::silent())?;
            session.log_measured(&measured(&source, &few, &clips)?)?;
            write_sheet(&mut session, &few, &clips)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("measuring held-out clips", Work::Run, 0);
    let many = held_out(recipe.final_clips)?;
    let student = networks.frozen(session.ema.arrays(), true)?;
    let clips = drawn(&student, &many, 1.0, control)?;
    write_sheet(&mut session, &many, &clips)?;
    let of_teacher = drawn(&models.transformer, &many, recipe.guidance, control)?;
    let [(_, motion_right), (_, frechet_distance)] = measured(&source, &many, &clips)?;
    let [(_, teacher_motion_right), (_, teacher_frechet_distance)] =
        measured(&source, &many, &of_teacher)?;
    control.stage("writing the model", Work::Run, 0);
    let arrays = session.ema.arrays();
    let pairs = networks.pairs.iter();
    let report = DmdReport {
        transformer_parameters: {
            let count = export(recipe, teacher, start.is_shown(), arrays, out)?;
            write_evaluation(drawings, recipe.frames, recipe.clip_size, &out.join(MODEL))?;
            count
        },
        critic_parameters: pairs
            .map(|pair| pair.down.elem_count() + pair.up.elem_count())
            .sum(),
        steps: session.step,
        seconds: session.seconds(),
        clips: pool.clips.len(),
        held_out_clips: clips.len(),
        motion_right,
        frechet_distance,
        teacher_motion_right,
        teacher_frechet_distance,
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

/// What every clip of a pool is led by, and what guidance leads away from.
fn conditionings(
    models: &Models,
    pool: &Pool,
    control: &Control,
) -> Result<(Vec<VideoConditioning>, VideoConditioning)> {
    let by = pool.clips.iter().map(|clip| {
        control.check()?;
        models.conditioning(&clip.prompt, pool.pixels(clip, false)?.as_ref())
    });
    let by = by.collect::<Result<Vec<_>>>()?;
    let black = match pool.clips.first() {
        Some(clip) => pool.pixels(clip, true)?,
        None => None,
    };
    let against = models.conditioning(&pool.empty, black.as_ref())?;
    Ok((by, against))
}

/// One update, of whoever's turn it is.
fn update(session: &mut Session, networks: &Networks, led: &Led, clips: Vec<usize>) -> Result<()> {
    let (recipe, each) = (led.recipe, led.pool.each());
    let turn = recipe.turn(session.step);
    let rng = &mut session.rng;
    let draws = clips.into_iter().map(|clip| match turn {
        Turn::Guidance => Draw::noised(recipe, rng, clip, each),
        Turn::Critic | Turn::Student => Draw::judged(recipe, rng, clip, each),
    });
    let draws: Vec<Draw> = draws.collect();
    let discriminator = networks.discriminator.as_ref();
    match turn {
        Turn::Guidance => session.update_noting(draws.len(), |part| {
            led.guidance_loss(networks, &draws, part)
        }),
        Turn::Student => {
            let normalised = discriminator.map(|heads| heads.normalise()).transpose()?;
            let heads =
                discriminator
                    .zip(normalised.as_ref())
                    .map(|(discriminator, normalised)| Heads {
                        discriminator,
                        normalised,
                    });
            session.update_noting(draws.len(), |part| {
                led.student_loss(networks, heads, &draws, part)
            })
        }
        Turn::Critic => {
            let normalised = match discriminator {
                Some(heads) => Some([heads.normalise()?, heads.normalise()?]),
                None => None,
            };
            let heads = discriminator
                .zip(normalised.as_ref())
                .map(|(discriminator, both)| {
                    both.each_ref().map(|normalised| Heads {
                        discriminator,
                        normalised,
                    })
                });
            session.update_through(
                draws.len(),
                &networks.seen_by_critic(),
                |part| led.critic_loss(networks, heads, &draws, part),
                |gradients| networks.pull(gradients),
            )?;
            networks.renew()
        }
    }
}

/// Writes the student's folder; gives its number of parameters.
fn export(
    recipe: &DmdRecipe,
    teacher: &ModelFolder,
    is_shown: bool,
    arrays: &[NamedArray],
    out: &Path,
) -> Result<usize> {
    let model = out.join(MODEL);
    let transformer = model.join(TRANSFORMER);
    std::fs::create_dir_all(&transformer).at(&transformer)?;
    copy_parts(teacher, &SHARED, &model)?;
    let weights = transformer.join("diffusion_pytorch_model.safetensors");
    let count = write_part(arrays, TRANSFORMER, &weights)?;
    let defaults = Defaults {
        shift: recipe.flow_shift,
        steps: recipe.steps,
        // The student has learned it.
        guidance: 1.0,
        frames: recipe.frames,
        size: recipe.clip_size,
    };
    write_defaults(&defaults, is_shown, &model)?;
    copy(&out.join(LOG), &model.join(LOG))?;
    Ok(count)
}
