//! `brisk image`: from a text to PNG files.

mod arguments;
mod best_of;
mod listener;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use brisk::{Control, GeneratedImage, described_png, keys};
use brisk_store::write_atomic;
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
    if let Some(candidates) = arguments.best.best_of {
        super::report_drawn_seed(&request.options);
        let named = (&*name, &folder);
        return best_of::run(arguments, candidates, &mut *model, &request, named);
    }
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
        brisk::write_latents(path, &images)?;
    }
    if let Some(path) = &arguments.save_codes {
        brisk::write_codes(path, &images)?;
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
        brisk::write_sheet(path, &images)?;
    }
    if arguments.json {
        let beside = [&arguments.save_codes, &arguments.save_latents].map(|path| path.as_deref());
        let mut document = brisk::report(&plan, &name, &images, &outputs, beside);
        document["seconds"] = json!(seconds);
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
