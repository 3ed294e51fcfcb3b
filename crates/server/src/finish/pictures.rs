//! Files of pictures.

use std::path::Path;

use brisk::{GeneratedImage, ImagePlan};
use serde_json::json;

use crate::ask::{Ask, Format, ImageAsk};
use crate::compute::Drawn;
use crate::error::{ApiError, Result};
use crate::outcome::{File, Images};

use super::{keep, seconds};

/// The outcome of a job that drew; `save` is where the files are kept besides.
pub(super) fn outcome(drawn: Drawn, save: Option<&Path>) -> Result<Images> {
    let Ask::Images(ask) = &drawn.job.ask else {
        return Err(ApiError::internal("pictures of a job that asked for none"));
    };
    let told = told(&drawn, ask);
    let mut files = Vec::with_capacity(drawn.pictures.len());
    for (index, (plan, image)) in drawn.pictures.iter().enumerate() {
        let bytes = encode(ask, plan, image)?;
        let saved = save.map(|folder| keep(folder, &drawn.job, index, ask.format.name(), &bytes));
        files.push(File {
            bytes: bytes.into(),
            media_type: ask.format.media_type(),
            seed: image.seed,
            saved,
        });
    }
    let made = drawn.pictures.iter();
    Ok(Images {
        files,
        told,
        prompt_tokens: drawn.prompt_tokens * drawn.pictures.len(),
        cells: made.map(|(_, image)| cells(image)).sum(),
    })
}

fn encode(ask: &ImageAsk, plan: &ImagePlan, image: &GeneratedImage) -> Result<Vec<u8>> {
    let failed = |error: brisk::Error| ApiError::internal(error.to_string());
    match ask.format {
        Format::Png { described: true } => {
            brisk::described_png(image, plan, 0, &ask.model.name).map_err(failed)
        }
        Format::Png { described: false } => brisk::png(image).map_err(failed),
        Format::Jpeg(quality) => brisk_media::encode_jpeg(&image.picture, quality)
            .map_err(|error| ApiError::internal(error.to_string())),
        Format::WebP => brisk_media::encode_webp(&image.picture)
            .map_err(|error| ApiError::internal(error.to_string())),
    }
}

/// Cells of a picture's latents, or the codes that it was made of; 0 of a model that has neither.
fn cells(image: &GeneratedImage) -> usize {
    match (&image.latents, &image.codes) {
        (Some(latents), _) => latents.shape[2] * latents.shape[3],
        (None, Some(codes)) => codes.0.values().map(|codes| codes.values.len()).sum(),
        (None, None) => 0,
    }
}

/// What replies tell of the pictures beside OpenAI's fields.
fn told(drawn: &Drawn, ask: &ImageAsk) -> serde_json::Value {
    let state = drawn.job.state();
    let plan = drawn.pictures.first().map(|(plan, _)| plan);
    let setting = |name: &str| plan.and_then(|plan| plan.settings.get(name).cloned());
    json!({
        "model": ask.model.id, "steps": plan.and_then(|plan| plan.known_steps()),
        "guidance": setting("guidance"), "scheduler": setting("scheduler"),
        "generated_width": plan.map(|plan| plan.generated_width),
        "generated_height": plan.map(|plan| plan.generated_height),
        "seconds": seconds(&drawn.job, &state),
        "peak_memory_bytes": drawn.peak_memory, "warnings": state.warnings,
    })
}
