//! Masks as replies show them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brisk::{GeneratedMask, describe_mask, describe_word};
use brisk_media::mask::Runs;
use serde_json::{Value, json};

use super::seconds;
use crate::ask::{Ask, MaskFormat};
use crate::compute::Found;
use crate::error::{ApiError, Result};
use crate::outcome::Masks;

/// Most bytes of a reply.
const MOST: usize = 64 << 20;

/// The outcome of a job that found masks.
pub(super) fn outcome(found: &Found) -> Result<Masks> {
    let Ask::Masks(ask) = &found.job.ask else {
        return Err(ApiError::internal("masks of a job that asked for none"));
    };
    let [width, height] = found.size;
    let mut bytes = 0;
    let mut masks = Vec::with_capacity(found.masks.masks.len());
    for mask in &found.masks.masks {
        let mut told = describe_mask(mask);
        let (name, pixels) = pixels(mask, ask.format, [width, height])?;
        bytes += size(&pixels);
        if bytes > MOST {
            let problem =
                format!("the masks take more than {MOST} bytes; ask for fewer, or for coco");
            return Err(ApiError::invalid("mask_format", problem));
        }
        told[name] = pixels;
        masks.push(told);
    }
    let words = found.masks.words.as_ref();
    let state = found.job.state();
    let mut reply = json!({
        "width": width, "height": height, "masks": masks,
        "brisk": {
            "model": ask.model.id, "settings": found.settings,
            "prompts": found.prompts.iter().map(|prompt| prompt.to_json()).collect::<Vec<_>>(),
            "seconds": seconds(&found.job, &state), "peak_memory_bytes": found.peak_memory,
            "warnings": state.warnings,
        },
    });
    if let Some(words) = words {
        reply["words"] = words.iter().map(describe_word).collect();
    }
    Ok(Masks { reply, bytes })
}

/// The pixels of a mask under the name of their form.
fn pixels(
    mask: &GeneratedMask,
    format: MaskFormat,
    size: [usize; 2],
) -> Result<(&'static str, Value)> {
    Ok(match format {
        MaskFormat::Png => {
            let png = mask.mask().to_png();
            let png = png.map_err(|error| ApiError::internal(error.to_string()))?;
            ("b64_json", STANDARD.encode(png).into())
        }
        MaskFormat::Polygons => ("polygons", json!(mask.mask().outlines())),
        MaskFormat::Coco => ("segmentation", coco(&mask.runs, size)),
    })
}

fn coco(runs: &Runs, [width, height]: [usize; 2]) -> Value {
    json!({"size": [height, width], "counts": runs.to_text()})
}

/// Bytes of it in a reply, about.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(size).sum::<usize>() + 2,
        Value::Object(fields) => fields.values().map(size).sum::<usize>() + 2,
        _ => 8,
    }
}
