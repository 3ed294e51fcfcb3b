//! The trained tower as a folder in the published layout, without its depth transformer.

use std::path::Path;

use brisk_store::{OutTensor, write_atomic, write_safetensors};
use serde_json::{Value, json};

use super::TowerRecipe;
use super::texts;
use crate::error::{FileContext, Result};
use crate::families::autoencoder::config_with;
use crate::session::write_json;
use crate::tensors::NamedArray;

/// The folder of SigLIP's configuration, which the tower's names.
pub(super) const SIGLIP: &str = "siglip";
/// The tokenizer of captions beside it.
pub(super) const CAPTIONS: &str = "tokenizer.model";

/// What the pictures are made of before the tower reads them.
pub(crate) fn preprocessor(side: usize) -> Value {
    let size = json!({"height": side, "width": side});
    json!({
        "crop_size": size, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true,
        "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "resample": 3, "rescale_factor": 1.0 / 255.0, "size": size,
    })
}

/// Writes the tower's folder.
pub(super) fn write(
    recipe: &TowerRecipe,
    arrays: &[NamedArray],
    text_file: &[u8],
    vocabulary: usize,
    folder: &Path,
) -> Result<()> {
    let siglip = folder.join(SIGLIP);
    std::fs::create_dir_all(&siglip).at(&siglip)?;
    let tensors: Vec<OutTensor> = arrays.iter().map(NamedArray::to_bf16_tensor).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&folder.join("model.safetensors"), &tensors, &metadata)?;
    write_json(&folder.join("config.json"), &named(&recipe.config)?)?;
    let side = recipe.tower()?.siglip()?.image_size;
    write_json(
        &folder.join("preprocessor_config.json"),
        &preprocessor(side),
    )?;
    write_json(
        &siglip.join("config.json"),
        &with_vocabulary(&recipe.siglip, vocabulary)?,
    )?;
    write_json(&siglip.join("tokenizer_config.json"), &texts::settings())?;
    Ok(write_atomic(&siglip.join(CAPTIONS), text_file)?)
}

/// The tower's configuration, which names the folder beside it.
fn named(config: &Value) -> Result<Value> {
    let autoencoder = config.get("rqvaesiglip").unwrap_or(&Value::Null);
    let autoencoder = config_with(autoencoder, None, &[("pretrained_model", SIGLIP.into())])?;
    config_with(config, None, &[("rqvaesiglip", autoencoder)])
}

/// SigLIP's configuration with as many tokens as there are.
pub(super) fn with_vocabulary(siglip: &Value, vocabulary: usize) -> Result<Value> {
    let text = siglip.get("text_config").unwrap_or(&Value::Null);
    let text = config_with(text, None, &[("vocab_size", vocabulary.into())])?;
    config_with(siglip, None, &[("text_config", text)])
}
