//! The trained model as a folder in the published layout.

use std::path::Path;

use brisk_pipelines::KnownPrompts;
use brisk_store::{OutTensor, write_atomic, write_safetensors};
use serde_json::json;

use super::TowerFiles;
use super::networks::{Configs, LLM, PROJECTOR, TOWER};
use super::vocabulary::Vocabulary;
use crate::error::{FileContext, Result};
use crate::families::image::export::{copy, write_part};
use crate::families::tower::preprocessor;
use crate::session::{LOG, Session, write_json};

/// What goes into the folder.
pub(super) struct Pieces<'a> {
    pub configs: &'a Configs,
    pub vocabulary: &'a Vocabulary,
    pub files: &'a TowerFiles,
    /// What it knows.
    pub known_prompts: KnownPrompts,
}

/// Writes `model` and returns the parameters of language model, projector and depth transformer.
pub(super) fn write(
    pieces: &Pieces,
    session: &Session,
    out: &Path,
    model: &Path,
) -> Result<[usize; 3]> {
    let Pieces {
        configs,
        vocabulary,
        files,
        ..
    } = pieces;
    for part in [LLM, TOWER, PROJECTOR] {
        let folder = model.join(part);
        std::fs::create_dir_all(&folder).at(&folder)?;
    }
    let arrays = session.ema.arrays();
    let weights = |part: &str| model.join(part).join("model.safetensors");
    let language = write_part(arrays, LLM, &weights(LLM))?;
    let projector = write_part(arrays, PROJECTOR, &weights(PROJECTOR))?;
    // The tower's own tensors as they are stored, and the depth transformer beside them.
    let prefix = format!("{TOWER}.");
    let own = arrays.iter().filter_map(|array| {
        let name = array.name.strip_prefix(&prefix)?.to_owned();
        let tensor = array.to_bf16_tensor();
        Some(OutTensor { name, ..tensor })
    });
    let mut tensors: Vec<OutTensor> = own.collect();
    let depth = tensors
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>());
    let depth = depth.sum();
    let stored = &*files.stored;
    for name in stored.names() {
        tensors.extend(OutTensor::stored(stored, name)?);
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&weights(TOWER), &tensors, &metadata)?;
    let tower = model.join(TOWER);
    write_json(&tower.join("config.json"), &configs.tower)?;
    let side = files.config.siglip()?.image_size;
    write_json(&tower.join("preprocessor_config.json"), &preprocessor(side))?;
    for (name, bytes) in &files.beside {
        let path = tower.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).at(folder)?;
        }
        write_atomic(&path, bytes)?;
    }
    write_json(
        &model.join(PROJECTOR).join("config.json"),
        &configs.projector,
    )?;
    let llm = model.join(LLM);
    let context = configs.language.context;
    write_json(&llm.join("config.json"), &configs.llm)?;
    write_json(
        &llm.join("generation_config.json"),
        &json!({
            "bos_token_id": 1, "do_sample": false, "eos_token_id": 2, "max_length": context, "pad_token_id": 0,
        }),
    )?;
    write_atomic(&llm.join("tokenizer.model"), &vocabulary.model)?;
    write_json(
        &llm.join("tokenizer_config.json"),
        &vocabulary.settings(context),
    )?;
    write_json(&llm.join("added_tokens.json"), &vocabulary.added())?;
    write_json(
        &llm.join("special_tokens_map.json"),
        &json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}),
    )?;
    write_json(
        &model.join("config.json"),
        &json!({
            "architectures": ["VILAULlamaModel"], "model_type": "vila_u_llama",
            "hidden_size": configs.language.hidden_size, "mm_hidden_size": configs.tower_model.embed_dim,
            "image_aspect_ratio": "resize", "num_video_frames": 8, "mm_use_im_start_end": true,
            "mm_use_vi_start_end": true, "mm_use_im_patch_token": false, "mm_vision_select_layer": -2,
            "llm_cfg": configs.llm, "vision_tower_cfg": configs.tower, "mm_projector_cfg": configs.projector,
        }),
    )?;
    write_json(
        &model.join(KnownPrompts::FILE),
        &pieces.known_prompts.to_json(),
    )?;
    copy(&out.join(LOG), &model.join(LOG))?;
    Ok([language, projector, depth])
}
