//! The student as a folder in the layout of published SANA-Sprint checkpoints.

use std::path::Path;

use brisk_pipelines::KnownPrompts;
use brisk_store::write_atomic;
use serde_json::json;

use super::SprintTeacher;
use crate::error::{FileContext, JsonContext, Result};
use crate::families::image::export::{copy, copy_parts, write_part};
use crate::families::image::{MODEL, TRANSFORMER};
use crate::objectives::SIGMA_DATA;
use crate::session::{LOG, write_json};
use crate::tensors::NamedArray;

/// Folders of the teacher that are the student's too.
const SHARED: [&str; 3] = ["text_encoder/", "tokenizer/", "vae/"];

/// Writes the folder; gives the transformer's number of parameters.
pub(super) fn write(
    teacher: &SprintTeacher,
    arrays: &[NamedArray],
    guidance: f64,
    known: &KnownPrompts,
    out: &Path,
) -> Result<usize> {
    let model = out.join(MODEL);
    for part in [TRANSFORMER, "scheduler"] {
        let folder = model.join(part);
        std::fs::create_dir_all(&folder).at(&folder)?;
    }
    copy_parts(&teacher.folder, &SHARED, &model)?;
    let transformer = model.join(TRANSFORMER);
    let weights = transformer.join("diffusion_pytorch_model.safetensors");
    let count = write_part(arrays, TRANSFORMER, &weights)?;
    let mut config = serde_json::to_value(teacher.student_config()).in_document("transformer")?;
    config["_class_name"] = "SanaTransformer2DModel".into();
    write_json(&transformer.join("config.json"), &config)?;
    write_json(
        &model.join("scheduler/scheduler_config.json"),
        &json!({
            "_class_name": "SCMScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": "trigflow",
            "sigma_data": SIGMA_DATA,
        }),
    )?;
    write_json(
        &model.join("model_index.json"),
        &json!({
            "_class_name": "SanaSprintPipeline",
            "scheduler": ["diffusers", "SCMScheduler"],
            "text_encoder": ["transformers", "Gemma2Model"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "SanaTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderDC"],
        }),
    )?;
    write_json(
        &model.join("generation_config.json"),
        &json!({ "guidance_scale": guidance }),
    )?;
    write_json(&model.join(KnownPrompts::FILE), &known.to_json())?;
    let instruction = model.join("complex_human_instruction.txt");
    write_atomic(&instruction, teacher.instruction.as_bytes())?;
    copy(&out.join(LOG), &model.join(LOG))?;
    Ok(count)
}
