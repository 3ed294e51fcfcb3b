//! `brisk image`: from a text to PNG files.

mod arguments;
mod listener;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use brisk::options::Codes;
use brisk::{Control, GeneratedImage, ImagePlan, described_png, keys};
use brisk_nn::tensor_file;
use brisk_store::{write_atomic, write_safetensors};
use serde_json::json;

pub use arguments::ImageArguments;

use super::stop_on_interrupt;
use crate::failure::{Failure, Result};
use crate::progress::Warnings;
use crate::{output, text};

/// Runs the command.
pub fn run(arguments: &ImageArguments) -> Result {
    arguments.threads.apply()?;
    let job = arguments.job()?;
    let (name, folder, settings) = job.model()?;
    let mut model = brisk::registry::open_image(&folder, &settings)?;
    let request = job.request(model.support());
    let plan = model.plan(&request)?;
    super::report_drawn_seed(&request.options);
    let count = job.only.map_or(plan.images.len(), |_| 1);
    let mut unused = None; // kept from other runs until the pictures are written
    let outputs = arguments.outputs(count, &mut unused)?;
    if arguments.save_codes.is_some() && !model.support().honours(keys::CODES.definition()) {
        return Err(Failure::usage(format!(
            "--save-codes: {} draws without codes",
            model.support().models
        )));
    }
    arguments.check_files(&outputs, &folder, &[&settings.options, &request.options])?;
    let warnings = Warnings::default();
    let listener = listener::listener(arguments.preview.clone(), warnings.clone());
    let control = Control::new(listener).with_cancel(stop_on_interrupt()?);
    plan.warnings
        .iter()
        .for_each(|warning| control.warn(warning));
    let started = Instant::now();
    let images = match model.generate(&plan, &control) {
        Err(brisk::Error::Cancelled) => {
            return Err(Failure::stopped("cancelled; nothing was written"));
        }
        other => other?,
    };
    drop(control);
    let mut stages: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, seconds) in images.iter().flat_map(|image| &image.seconds) {
        *stages.entry(name).or_default() += seconds;
    }
    // Of pictures that are drawn again, only the one that was asked for is kept.
    let wanted = |index: &usize| job.only.is_none_or(|only| only == *index);
    let (indices, images): (Vec<usize>, Vec<GeneratedImage>) = images
        .into_iter()
        .enumerate()
        .filter(|(index, _)| wanted(index))
        .unzip();
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &arguments.save_latents {
        save_latents(path, &images)?;
    }
    if let Some(path) = &arguments.save_codes {
        save_codes(path, &images)?;
    }
    for ((image, index), path) in images.iter().zip(&indices).zip(&outputs) {
        let bytes = described_png(image, &plan, *index, &name)?;
        if is_stdout(path) {
            output::print_bytes(&bytes)?;
        } else {
            write_atomic(path, &bytes)?;
        }
    }
    if let Some(path) = &arguments.sheet {
        write_sheet(path, &images)?;
    }
    if arguments.json {
        let mut document = document(arguments, &plan, &name, &images, &outputs, seconds);
        document["stages_seconds"] = json!(stages);
        document["warnings"] = warnings.take().into();
        return output::print_json(&document);
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    if outputs.iter().any(|path| is_stdout(path)) {
        return Ok(());
    }
    output::print(
        &outputs
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect::<String>(),
    )
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn document(
    arguments: &ImageArguments,
    plan: &ImagePlan,
    model: &str,
    images: &[GeneratedImage],
    outputs: &[PathBuf],
    seconds: f64,
) -> serde_json::Value {
    let written: Vec<_> = images
        .iter()
        .zip(outputs)
        .enumerate()
        .map(|(index, (image, path))| {
            json!({
                "path": path.display().to_string(), "prompt": image.prompt, "seed": image.seed,
                "index": index, "width": image.picture.width, "height": image.picture.height,
            })
        })
        .collect();
    json!({
        "images": written, "model": model, "steps": plan.steps,
        "guidance": plan.settings.get("guidance"), "settings": plan.settings,
        "seconds": seconds,
        "codes": arguments.save_codes.as_ref().map(|path| path.display().to_string()),
        "latents": arguments.save_latents.as_ref().map(|path| path.display().to_string()),
    })
}

/// Pictures in a row of a sheet.
const SHEET_COLUMNS: usize = 8;

/// Writes all pictures with their prompts below them.
fn write_sheet(path: &Path, images: &[GeneratedImage]) -> Result {
    let cells: Vec<_> = images
        .iter()
        .map(|image| (image.picture.clone(), image.prompt.clone()))
        .collect();
    let sheet = brisk_media::contact_sheet(&cells, SHEET_COLUMNS.min(cells.len()))?;
    let bytes = brisk_media::encode_png(&sheet, &[])?;
    Ok(write_atomic(path, &bytes)?)
}

/// Writes the final latents of all pictures as one tensor `latents` `[B,C,h,w]`.
fn save_latents(path: &Path, images: &[GeneratedImage]) -> Result {
    let latents: Vec<_> = images
        .iter()
        .filter_map(|image| image.latents.as_ref())
        .collect();
    let Some(first) = latents.first() else {
        return Err(Failure::usage(
            "--save-latents: this model draws without latents",
        ));
    };
    let [_, channels, height, width] = first.shape;
    let values: Vec<f32> = latents
        .iter()
        .flat_map(|latents| latents.values.iter().copied())
        .collect();
    let tensor = tensor_file::floats(
        "latents",
        vec![latents.len(), channels, height, width],
        &values,
    );
    Ok(write_safetensors(path, &[tensor], &Default::default())?)
}

/// Writes the codes of all pictures, one picture a row of each tensor.
fn save_codes(path: &Path, images: &[GeneratedImage]) -> Result {
    let codes = Codes::stacked(images.iter().filter_map(|image| image.codes.as_ref()))?;
    let tensors = codes.0.iter();
    let tensors =
        tensors.map(|(name, tensor)| tensor_file::ids(name, tensor.shape.clone(), &tensor.values));
    let tensors: Vec<_> = tensors.collect();
    Ok(write_safetensors(path, &tensors, &Default::default())?)
}
