//! A request checked against a model, with everything decided.

use std::sync::Arc;

use brisk_media::Picture;
use serde_json::{Map, Value, json};

use super::load::Files;
use super::options::HUNYUAN_VIDEO;
use super::picture::nearest_shape;
use crate::error::{Error, Result};
use crate::options::{ClipLatents, OptionValue, Scope, keys, video_keys};
use crate::request::VideoRequest;
use crate::request::entries;

/// Frames of a clip where a request names no number.
const FRAMES: usize = 129;
/// Shape of a clip from text alone.
const SHAPE: [usize; 2] = [960, 544];
/// Steps where a request names no number.
const STEPS: usize = 50;
/// Frames a second.
const RATE: f64 = 24.0;

/// A request with every decision made.
#[derive(Debug, Clone)]
pub(super) struct ClipPlan {
    pub prompt: String,
    pub picture: Option<Arc<Picture>>,
    /// What the text encoder sees.
    pub prompt_picture: Option<Arc<Picture>>,
    pub size: [usize; 2],
    /// Frames that are generated.
    pub frames: usize,
    /// Frames at the beginning that are not part of the result.
    pub dropped: usize,
    pub rate: f64,
    pub steps: usize,
    pub shift: f64,
    /// Strength of guidance.
    pub guidance: f32,
    /// What a second pass of each step leads away from.
    pub negative: Option<String>,
    pub seed: u64,
    pub latents: Option<Arc<ClipLatents>>,
}

impl ClipPlan {
    /// Frames of the result that are the given picture.
    pub fn given_frames(&self) -> usize {
        usize::from(self.picture.is_some() && self.dropped == 0)
    }

    /// `[C, F, h, w]`
    pub fn latent_shape(&self, files: &Files) -> [usize; 4] {
        let ratio = files.autoencoder_config.spatial_compression_ratio;
        [
            files.autoencoder_config.latent_channels,
            files.latent_frames(self.frames),
            self.size[1] / ratio,
            self.size[0] / ratio,
        ]
    }

    /// Effective values, for metadata.
    pub fn settings(&self) -> Map<String, Value> {
        entries(json!({
            "frames": self.frames, "shift": self.shift, "guidance": self.guidance.into_value().to_json(),
            "negative_prompt": self.negative,
        }))
    }
}

/// Checks a request against a model and decides what it leaves open.
pub(super) fn plan(request: &VideoRequest, files: &Files) -> Result<ClipPlan> {
    let asked = &request.options;
    HUNYUAN_VIDEO.check(&files.label, Scope::Request, asked)?;
    request.check()?;
    let picture = asked.get(&video_keys::IMAGE);
    match (files.condition(), &picture) {
        (None, Some(_)) => {
            return Err(Error::request(
                video_keys::IMAGE.name(),
                format!(
                    "{} makes clips from text alone; leave it out, or take an image-to-video model",
                    files.label
                ),
            ));
        }
        (Some(_), None) => {
            return Err(Error::request(
                video_keys::IMAGE.name(),
                format!("{} begins clips with a picture; give one", files.label),
            ));
        }
        _ => {}
    }
    let defaults = &files.defaults;
    let published = match &picture {
        Some(picture) => nearest_shape([picture.width, picture.height]),
        None => SHAPE,
    };
    let usual = [0, 1].map(|side| defaults.size[side].unwrap_or(published[side]));
    let size = [
        side(
            &video_keys::WIDTH,
            asked.get(&video_keys::WIDTH),
            usual[0],
            files,
        )?,
        side(
            &video_keys::HEIGHT,
            asked.get(&video_keys::HEIGHT),
            usual[1],
            files,
        )?,
    ];
    let frames = asked
        .get(&video_keys::FRAMES)
        .or(defaults.frames)
        .unwrap_or(FRAMES);
    check_frames(frames, files)?;
    let guidance = asked.get(&keys::GUIDANCE).unwrap_or(files.guidance);
    let negative = asked.get(&video_keys::NEGATIVE_PROMPT);
    let unread = match (files.config.guidance_embeds, guidance == 1.0) {
        (true, _) => Some("the model embeds its guidance and knows no negative prompt"),
        (false, true) => Some("has no effect with a `guidance` of 1"),
        (false, false) => None,
    };
    if let (Some(reason), Some(_)) = (unread, &negative) {
        return Err(Error::request(
            video_keys::NEGATIVE_PROMPT.name(),
            format!("{reason}; leave it out"),
        ));
    }
    let mut plan = ClipPlan {
        prompt: request.prompt.clone(),
        size,
        frames,
        // The reference leaves out the group of frames that the given one is in.
        dropped: match files.condition() {
            Some(brisk_models::hunyuan_video::transformer::ImageCondition::LatentConcat)
                if frames > 1 && !defaults.keeps_first_frames =>
            {
                files.autoencoder_config.temporal_compression_ratio
            }
            _ => 0,
        },
        rate: asked
            .get(&video_keys::FRAME_RATE)
            .or(defaults.rate)
            .unwrap_or(RATE),
        steps: asked.get(&keys::STEPS).or(defaults.steps).unwrap_or(STEPS),
        shift: asked.get(&video_keys::SHIFT).unwrap_or(files.shift),
        guidance,
        negative: unread.is_none().then(|| negative.unwrap_or_default()),
        seed: asked.get(&keys::SEED).unwrap_or(0),
        latents: asked.get(&video_keys::LATENTS),
        prompt_picture: asked
            .get(&video_keys::PROMPT_IMAGE)
            .or_else(|| picture.clone()),
        picture,
    };
    if let Some(latents) = plan.latents.take() {
        check_latents(&latents, plan.latent_shape(files))?;
        plan.latents = Some(latents);
    }
    Ok(plan)
}

/// A side of the frames.
fn side(
    key: &'static crate::options::Key<usize>,
    asked: Option<usize>,
    usual: usize,
    files: &Files,
) -> Result<usize> {
    let multiple = files.multiple();
    match asked {
        Some(pixels) if pixels.is_multiple_of(multiple) => Ok(pixels),
        Some(pixels) => {
            let below = pixels / multiple * multiple;
            let near = match below {
                0 => multiple.to_string(),
                _ => format!("{below} or {}", below + multiple),
            };
            Err(Error::request(
                key.name(),
                format!("{pixels} is no multiple of {multiple} pixels; the nearest are {near}"),
            ))
        }
        None => Ok((usual / multiple * multiple).max(multiple)),
    }
}

fn check_frames(frames: usize, files: &Files) -> Result<()> {
    let group = files.autoencoder_config.temporal_compression_ratio;
    if (frames - 1).is_multiple_of(group) {
        return Ok(());
    }
    let below = (frames - 1) / group * group + 1;
    Err(Error::request(
        video_keys::FRAMES.name(),
        format!(
            "{frames} is not one more than a multiple of {group}; the nearest are {below} and {}",
            below + group
        ),
    ))
}

fn check_latents(
    latents: &ClipLatents,
    [channels, frames, rows, columns]: [usize; 4],
) -> Result<()> {
    let expected = [1, channels, frames, rows, columns];
    let wrong = |message: String| Err(Error::request(video_keys::LATENTS.name(), message));
    if latents.shape != expected {
        return wrong(format!(
            "have shape {:?}; this request needs {expected:?}",
            latents.shape
        ));
    }
    if latents.values.len() != expected.iter().product::<usize>() {
        let held = latents.values.len();
        return wrong(format!("hold {held} values for shape {expected:?}"));
    }
    if latents.values.iter().any(|value| !value.is_finite()) {
        return wrong("hold a value that is not finite".to_owned());
    }
    Ok(())
}
