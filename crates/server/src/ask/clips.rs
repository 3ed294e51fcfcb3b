//! Requests for clips.

use std::sync::Arc;

use brisk::options::video_keys::{FRAMES, HEIGHT, IMAGE, WIDTH};
use brisk::options::{Key, Options};
use brisk::{Picture, ResultKind, StageCost, VideoModel, VideoPlan, VideoRequest, keys};
use serde_json::{Map, Value};

use super::images::{check_picture, check_steps, refusal, size};
use super::opening::Opening;
use super::{Context, Pictures, seed, seeds};
use crate::error::{ApiError, Result};
use crate::fields::{Endpoint, Given};
use crate::served::Served;
use crate::settings::{MAX_CLIP_FRAMES, MAX_CLIP_PIXELS};

/// How far from the wanted number of frames one is looked for that the model takes.
const NEAR: usize = 8;
/// Longest clip that may be asked for by its length, in seconds.
const LONGEST: f64 = 3600.0;

/// What is asked for.
#[derive(Debug)]
pub struct ClipAsk {
    /// Of which model.
    pub model: Arc<Served>,
    /// Without the pictures that it begins with and is read with.
    request: VideoRequest,
    pictures: Pictures,
    /// The first frame, where it is drawn.
    pub opening: Option<Opening>,
    /// Seed of the noise.
    pub seed: u64,
    /// Width and height of the frames, in pixels.
    pub size: [usize; 2],
    /// Frames of the result.
    pub frames: usize,
    /// Frames a second.
    pub rate: f64,
    /// Steps of the sampler.
    pub steps: usize,
    /// Bytes of the stage that needs most, the model's own among them.
    pub memory: u64,
    /// What it computes, stage by stage.
    pub costs: Vec<StageCost>,
}

impl ClipAsk {
    pub(super) fn read(
        context: Context<'_>,
        endpoint: Endpoint,
        body: Map<String, Value>,
        files: Vec<Vec<u8>>,
    ) -> Result<Self> {
        if !files.is_empty() {
            let problem = "is no field of this request; the first frame is `input_reference`";
            return Err(ApiError::invalid("image[]", problem));
        }
        let mut given = endpoint.table().read(body)?;
        let model = context
            .models
            .wanted(given.text("model"), ResultKind::Clips)?;
        let prompt = given.text("prompt").unwrap_or_default().to_owned();
        if prompt.is_empty() {
            return Err(ApiError::invalid(
                "prompt",
                "is empty; say what happens in the clip",
            ));
        }
        let mut options = std::mem::take(&mut given.options);
        size(&given, &mut options, [&WIDTH, &HEIGHT])?;
        let pictures = Pictures::of(std::mem::take(&mut given.pictures));
        check_asked(context, &options)?;
        let decoded = pictures.decode(context.release_memory)?;
        options.complete(&decoded.options);
        let seed = seed(options.get(&keys::SEED));
        // As of every other request: none is larger than a seed can be.
        seeds(seed, 1)?;
        options.set(&keys::SEED, seed);
        let mut request = VideoRequest { prompt, options };
        let opening = match model.needs_image() && !pictures.has(IMAGE.definition()) {
            true => Some(Opening::read(context, &model, &mut request, seed)?),
            false => None,
        };
        let sized = given.text("size").is_some_and(|size| size != "auto");
        let refused = |error: &brisk::Error| match error.option() {
            // What was given is said, not what it was read into.
            Some("width" | "height") if sized => ApiError {
                param: Some("size".to_owned()),
                ..ApiError::of_library(error)
            },
            _ => refusal(context, error),
        };
        if let Some(seconds) = seconds(&given, &request.options)? {
            let frames = frames_of(&model, &request, seconds).map_err(|error| match error {
                Wrong::Field(error) => error,
                Wrong::Plan(error) => refused(&error),
            })?;
            request.options.set(&FRAMES, frames);
        }
        let planned = model.plan_clip(&request);
        let (plan, costs) = planned.map_err(|error| refused(&error))?;
        check_plan(context, &model, &plan)?;
        let memory = context.room_for(&plan.memory)?;
        put_away(&pictures, opening.as_ref(), &mut request.options);
        Ok(Self {
            model,
            request,
            pictures,
            opening,
            seed,
            size: [plan.width, plan.height],
            frames: plan.frames,
            rate: plan.rate,
            steps: plan.steps,
            memory,
            costs,
        })
    }

    /// What happens in the clip.
    pub fn prompt(&self) -> &str {
        &self.request.prompt
    }

    /// How long the clip lasts, in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames as f64 / self.rate
    }

    /// Plans the clip by the model that makes it, with the first frame that was drawn for it; the pictures themselves are
    /// in what the plan decided, as far as they are seen. `release_memory` hands freed memory back to the system.
    ///
    /// # Errors
    /// A picture that cannot be decoded, or what the plan says.
    pub fn planned(
        &self,
        model: &dyn VideoModel,
        first: Option<Picture>,
        release_memory: fn(),
    ) -> Result<VideoPlan> {
        let decoded = self.pictures.decode(release_memory)?;
        let mut request = self.request.clone();
        request.options.complete(&decoded.options);
        if let Some(first) = first {
            request.options.set(&IMAGE, first.into());
        }
        let plan = model.plan(&request);
        let mut plan = plan.map_err(|error| ApiError::of_library(&error))?;
        put_away(
            &self.pictures,
            self.opening.as_ref(),
            &mut plan.request.options,
        );
        Ok(plan)
    }
}

/// Takes pictures out of options, given and drawn ones.
fn put_away(pictures: &Pictures, opening: Option<&Opening>, options: &mut Options) {
    pictures.put_away(options);
    if opening.is_some() {
        options.remove(IMAGE.definition());
    }
}

/// Refuses what is too large before a model plans it.
fn check_asked(context: Context<'_>, options: &Options) -> Result<()> {
    if let Some(frames) = options.get(&FRAMES) {
        check_frames(frames)?;
    }
    if let Some(steps) = options.get(&keys::STEPS) {
        check_steps(context, steps)?;
    }
    let side = |key: &'static Key<usize>| options.get(key).unwrap_or(1);
    let frames = options.get(&FRAMES).unwrap_or(1);
    check_pixels(context, [side(&WIDTH), side(&HEIGHT)], frames)
}

/// The same of what a plan decided.
fn check_plan(context: Context<'_>, model: &Served, plan: &VideoPlan) -> Result<()> {
    check_frames(plan.frames)?;
    let support = model.support(ResultKind::Clips);
    // A model that draws place by place has as many steps as its frames have places.
    if support.is_some_and(|support| support.honours(keys::STEPS.definition())) {
        check_steps(context, plan.steps)?;
    }
    check_pixels(context, [plan.width, plan.height], plan.frames)
}

fn check_frames(frames: usize) -> Result<()> {
    match frames > MAX_CLIP_FRAMES {
        true => Err(ApiError::invalid(
            "frames",
            format!("{frames} frames are more than {MAX_CLIP_FRAMES}; ask for a shorter clip"),
        )),
        false => Ok(()),
    }
}

fn check_pixels(context: Context<'_>, [width, height]: [usize; 2], frames: usize) -> Result<()> {
    let pixels = check_picture(context, width, height)?;
    if pixels.saturating_mul(frames) > MAX_CLIP_PIXELS {
        let problem = format!(
            "{frames} frames of {width}x{height} are more than {MAX_CLIP_PIXELS} pixels in all; ask for fewer \
             frames, or smaller ones"
        );
        return Err(ApiError::invalid("frames", problem));
    }
    Ok(())
}

/// Reads `seconds`, a number or the text of one, as OpenAI's clients send it.
fn seconds(given: &Given, options: &Options) -> Result<Option<f64>> {
    let Some(value) = given.own.get("seconds") else {
        return Ok(None);
    };
    let read = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    let Some(seconds) = read.filter(|seconds: &f64| *seconds > 0.0 && *seconds <= LONGEST) else {
        let found = value.to_string();
        let shown = brisk_store::shown_within(&found, 32);
        let problem = format!("{shown} is not a number of seconds above 0, at most {LONGEST}");
        return Err(ApiError::invalid("seconds", problem));
    };
    if options.has(FRAMES.definition()) {
        let problem = "cannot be combined with `frames`; give one of them";
        return Err(ApiError::invalid("seconds", problem));
    }
    Ok(Some(seconds))
}

/// Why no number of frames was found.
enum Wrong {
    /// A field says so.
    Field(ApiError),
    /// The model says so.
    Plan(brisk::Error),
}

/// The number of frames to ask for so that the clip lasts as nearly as it can for so many seconds, at the request's
/// frame rate or the model's own.
fn frames_of(model: &Served, request: &VideoRequest, seconds: f64) -> Result<usize, Wrong> {
    let plan = |frames: usize| {
        let planned = model.plan_clip(&request.clone().with(&FRAMES, frames));
        planned.map(|(plan, _)| plan)
    };
    let rate = plan(1).map_err(Wrong::Plan)?.rate;
    let wanted = ((seconds * rate).round() as usize).max(1);
    if wanted > MAX_CLIP_FRAMES {
        let problem = format!(
            "{seconds} at {rate} frames a second are {wanted} frames; at most {MAX_CLIP_FRAMES} are made; ask for \
             less, or for a lower `fps`"
        );
        return Err(Wrong::Field(ApiError::invalid("seconds", problem)));
    }
    let (first, last) = (wanted.saturating_sub(NEAR).max(1), wanted + NEAR);
    let mut nearest: Option<(usize, usize)> = None;
    let mut refused = None;
    for frames in first..=last.min(MAX_CLIP_FRAMES) {
        match plan(frames) {
            // Some models leave out frames of those that they make.
            Ok(plan) => {
                let off = plan.frames.abs_diff(wanted);
                if nearest.is_none_or(|(least, _)| off < least) {
                    nearest = Some((off, frames));
                }
            }
            Err(error) => refused = Some(error),
        }
    }
    match (nearest, refused) {
        (Some((_, frames)), _) => Ok(frames),
        (None, Some(error)) => Err(Wrong::Plan(error)),
        (None, None) => {
            let error = ApiError::invalid("seconds", "no number of frames is near; give `frames`");
            Err(Wrong::Field(error))
        }
    }
}
