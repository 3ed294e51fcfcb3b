//! Files of clips.

use std::path::Path;

use brisk::{REQUEST_KEYWORD, describe_clip};
use serde_json::json;

use super::{keep, seconds};
use crate::ask::Ask;
use crate::compute::Filmed;
use crate::error::{ApiError, Result};
use crate::outcome::{Clip, ClipFormat, File};

/// The outcome of a job that made a clip; `save` is where it is kept besides, with all its colours.
pub(super) fn outcome(filmed: &Filmed, save: Option<&Path>) -> Result<Clip> {
    let Ask::Clips(ask) = &filmed.job.ask else {
        return Err(ApiError::internal("a clip of a job that asked for none"));
    };
    let failed = |error: brisk_media::Error| ApiError::internal(error.to_string());
    let (clip, plan) = (&filmed.made.clip, &filmed.plan);
    let description = describe_clip(plan, &ask.model.name).to_string();
    let mut saved = None;
    let mut files = Vec::with_capacity(ClipFormat::ALL.len());
    for format in ClipFormat::ALL {
        let bytes = match format {
            ClipFormat::Gif => clip.encode_gif(),
            ClipFormat::AnimatedPng => {
                clip.encode_apng(&[(REQUEST_KEYWORD.to_owned(), description.clone())])
            }
        }
        .map_err(failed)?;
        if format == ClipFormat::AnimatedPng {
            saved = save.map(|folder| keep(folder, &filmed.job, 0, "png", &bytes));
        }
        files.push(File {
            bytes: bytes.into(),
            media_type: format.media_type(),
            seed: ask.seed,
            saved: None,
        });
    }
    let state = filmed.job.state();
    let mut told = json!({
        "settings": plan.settings, "given_frames": plan.given_frames,
        "seconds": seconds(&filmed.job, &state), "peak_memory_bytes": filmed.peak_memory,
    });
    if let Some(saved) = saved {
        told["saved"] = saved.into();
    }
    Ok(Clip { files, told })
}
