//! What is written beside pictures: their latents, their codes, a sheet of them all, and a report.

use std::path::{Path, PathBuf};

use brisk_media::{contact_sheet, encode_png};
use brisk_nn::tensor_file;
use brisk_pipelines::options::Codes;
use brisk_pipelines::{Error, GeneratedImage, ImagePlan, Result};
use brisk_store::{write_atomic, write_safetensors};
use serde_json::{Value, json};

/// Pictures in a row of a sheet.
const SHEET_COLUMNS: usize = 8;

/// Writes all pictures with their prompts below them as one PNG file.
///
/// # Errors
/// Too many pictures for one, or a file that cannot be written.
pub fn write_sheet(path: &Path, images: &[GeneratedImage]) -> Result<()> {
    let cells: Vec<_> = images
        .iter()
        .map(|image| (image.picture.clone(), image.prompt.clone()))
        .collect();
    let sheet = contact_sheet(&cells, SHEET_COLUMNS.min(cells.len()))?;
    Ok(write_atomic(path, &encode_png(&sheet, &[])?)?)
}

/// Writes the final latents of all pictures as one tensor `latents` `[B,C,h,w]`.
///
/// # Errors
/// A model that draws without latents, or a file that cannot be written.
pub fn write_latents(path: &Path, images: &[GeneratedImage]) -> Result<()> {
    let latents: Vec<_> = images
        .iter()
        .filter_map(|image| image.latents.as_ref())
        .collect();
    let Some(first) = latents.first() else {
        return Err(Error::request(
            "save-latents",
            "this model draws without latents",
        ));
    };
    let [_, channels, height, width] = first.shape;
    let values = latents.iter().flat_map(|latents| &latents.values).copied();
    let shape = vec![latents.len(), channels, height, width];
    let tensor = tensor_file::floats("latents", shape, &values.collect::<Vec<_>>());
    Ok(write_safetensors(path, &[tensor], &Default::default())?)
}

/// Writes the codes of all pictures, one picture a row of each tensor.
///
/// # Errors
/// Pictures whose codes are not alike, or a file that cannot be written.
pub fn write_codes(path: &Path, images: &[GeneratedImage]) -> Result<()> {
    let codes = Codes::stacked(images.iter().filter_map(|image| image.codes.as_ref()))?;
    let tensors = codes.0.iter();
    let tensors =
        tensors.map(|(name, tensor)| tensor_file::ids(name, tensor.shape.clone(), &tensor.values));
    let tensors: Vec<_> = tensors.collect();
    Ok(write_safetensors(path, &tensors, &Default::default())?)
}

/// Which pictures of a plan were written where, by the `model` of this name; `beside` are the files of codes and of
/// latents, where there are any.
pub fn report(
    plan: &ImagePlan,
    model: &str,
    images: &[GeneratedImage],
    outputs: &[PathBuf],
    beside: [Option<&Path>; 2],
) -> Value {
    let written = images.iter().zip(outputs).enumerate();
    let written = written.map(|(index, (image, path))| {
        json!({
            "path": path.display().to_string(), "prompt": image.prompt, "seed": image.seed,
            "index": index, "width": image.picture.width, "height": image.picture.height,
        })
    });
    let [codes, latents] = beside.map(|path| path.map(|path| path.display().to_string()));
    json!({
        "images": written.collect::<Vec<_>>(), "model": model, "steps": plan.known_steps(),
        "guidance": plan.settings.get("guidance"), "settings": plan.settings,
        "codes": codes, "latents": latents,
    })
}
