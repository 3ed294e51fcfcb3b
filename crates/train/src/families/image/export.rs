//! The trained model as a folder in the layout of published checkpoints.

use std::path::Path;
use std::sync::Arc;

use brisk_models::dcae::AutoencoderConfig;
use brisk_pipelines::KnownPrompts;
use brisk_pipelines::folder::Opened;
use brisk_store::{ModelFolder, OutTensor, TensorSource, write_atomic, write_safetensors};
use serde_json::json;

use super::{Configs, ImageReport, MODEL, TEXT_ENCODER, TRANSFORMER};
use crate::error::{FileContext, Result};
use crate::log::mean_of_last_tenth;
use crate::session::{LOG, REPORT, Session, write_json};
use crate::tensors::NamedArray;

/// What goes into the folder.
pub(super) struct Pieces<'a> {
    pub arrays: &'a [NamedArray],
    pub configs: &'a Configs,
    pub tokenizer: &'a [u8],
    pub vae: &'a Opened<AutoencoderConfig>,
    pub flow_shift: f64,
    /// Guidance that the model is drawn with by default.
    pub guidance: f64,
    /// What it knows.
    pub known_prompts: KnownPrompts,
}

/// Writes the tensors below `prefix` in bf16 and returns their number of values.
pub(crate) fn write_part(arrays: &[NamedArray], prefix: &str, path: &Path) -> Result<usize> {
    let prefix = format!("{prefix}.");
    let mut count = 0;
    let mut tensors: Vec<OutTensor> = Vec::new();
    for array in arrays {
        let Some(name) = array.name.strip_prefix(&prefix) else {
            continue;
        };
        count += array.values.len();
        let mut tensor = array.to_bf16_tensor();
        tensor.name = name.to_owned();
        tensors.push(tensor);
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(path, &tensors, &metadata)?;
    Ok(count)
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).at(from)?;
    Ok(())
}

pub(super) fn write(
    pieces: &Pieces,
    session: &Session,
    pictures: usize,
    out: &Path,
) -> Result<ImageReport> {
    let model = out.join(MODEL);
    for part in [TRANSFORMER, TEXT_ENCODER, "tokenizer", "vae", "scheduler"] {
        let folder = model.join(part);
        std::fs::create_dir_all(&folder).at(&folder)?;
    }
    let transformer_parameters = write_part(
        pieces.arrays,
        TRANSFORMER,
        &model.join("transformer/diffusion_pytorch_model.safetensors"),
    )?;
    write_json(
        &model.join("transformer/config.json"),
        &pieces.configs.transformer,
    )?;
    let text_encoder_parameters = write_part(
        pieces.arrays,
        TEXT_ENCODER,
        &model.join("text_encoder/model.safetensors"),
    )?;
    write_json(
        &model.join("text_encoder/config.json"),
        &pieces.configs.text,
    )?;
    write_tokenizer(pieces.tokenizer, &model.join("tokenizer"))?;
    write_autoencoder(pieces.vae, &model.join("vae"))?;
    write_json(
        &model.join("scheduler/scheduler_config.json"),
        &json!({
            "_class_name": "DPMSolverMultistepScheduler",
            "algorithm_type": "dpmsolver++",
            "final_sigmas_type": "zero",
            "flow_shift": pieces.flow_shift,
            "lower_order_final": true,
            "num_train_timesteps": 1000,
            "prediction_type": "flow_prediction",
            "solver_order": 2,
            "solver_type": "midpoint",
            "use_flow_sigmas": true,
        }),
    )?;
    write_json(
        &model.join("model_index.json"),
        &json!({
            "_class_name": "SanaPipeline",
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "text_encoder": ["transformers", "Gemma2Model"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "SanaTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderDC"],
        }),
    )?;
    write_json(
        &model.join("generation_config.json"),
        &json!({ "guidance_scale": pieces.guidance }),
    )?;
    write_json(
        &model.join(KnownPrompts::FILE),
        &pieces.known_prompts.to_json(),
    )?;
    // Empty: this model was trained without an instruction before the prompt.
    write_atomic(&model.join("complex_human_instruction.txt"), b"")?;
    copy(&out.join(LOG), &model.join(LOG))?;
    let report = ImageReport {
        steps: session.step,
        seconds: session.seconds(),
        transformer_parameters,
        text_encoder_parameters,
        optimiser_bytes: session.optimiser_bytes(),
        pictures,
        vocabulary: pieces.configs.text_model.vocab_size,
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

/// The autoencoder as it is stored, under diffusers' names.
pub(crate) fn write_autoencoder(opened: &Opened<AutoencoderConfig>, folder: &Path) -> Result<()> {
    write_stored(opened.stored(), folder)?;
    write_json(&folder.join("config.json"), &opened.config)
}

/// Tensors as they are stored, as a network of diffusers.
pub(crate) fn write_stored(source: Option<&Arc<dyn TensorSource>>, folder: &Path) -> Result<()> {
    let tensors = source.into_iter().flat_map(|source| {
        let names = source.names().into_iter();
        names.filter_map(|name| OutTensor::stored(&**source, name).transpose())
    });
    let tensors: Vec<OutTensor> = tensors.collect::<Result<_, _>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let weights = folder.join("diffusion_pytorch_model.safetensors");
    Ok(write_safetensors(&weights, &tensors, &metadata)?)
}

/// Copies the files of `from` whose names begin with one of `folders` into the folder `to`.
pub(crate) fn copy_parts(from: &ModelFolder, folders: &[&str], to: &Path) -> Result<()> {
    for name in from.list() {
        if !folders.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let target = to.join(&name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        match from {
            ModelFolder::Disk(path) => copy(&path.join(&name), &target)?,
            ModelFolder::Embedded { .. } => write_atomic(&target, &from.read(&name)?)?,
        }
    }
    Ok(())
}

/// A tokenizer that was trained here.
pub(crate) fn write_tokenizer(tokenizer: &[u8], folder: &Path) -> Result<()> {
    write_atomic(&folder.join("tokenizer.json"), tokenizer)?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "add_bos_token": true,
            "add_eos_token": false,
            "bos_token": "<bos>",
            "clean_up_tokenization_spaces": false,
            "eos_token": "<eos>",
            "model_max_length": 512,
            "pad_token": "<pad>",
            "padding_side": "right",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
        }),
    )?;
    write_json(
        &folder.join("special_tokens_map.json"),
        &json!({
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        }),
    )
}
