//! `brisk image`: from a text to PNG files.

mod options;
mod picture_file;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use brisk_pipelines::sana::{GeneratedImage, SanaPipeline};
use brisk_pipelines::schedulers::SchedulerKind;
use brisk_pipelines::{Control, Event, ImageRequest, ModelKind};
use brisk_store::output::numbered;
use brisk_store::write_safetensors;
use serde_json::json;

pub use options::{ImageArguments, read_instruction, with_request_help};
use picture_file::{Description, write_picture};

use super::stop_on_interrupt;
use crate::failure::{Failure, Result};
use crate::progress::Stages;
use crate::{output, tensors, text};

/// Memory below which an estimate is not worth a line.
const LARGE: u64 = 1 << 30;

/// Runs the command.
pub fn run(arguments: &ImageArguments) -> Result {
    arguments.threads.apply()?;
    let request = arguments.request()?;
    let (folder, options) = arguments.model()?;
    let mut pipeline = SanaPipeline::load(folder, &options)?;
    let capabilities = pipeline.capabilities();
    let plan = request.validate(&capabilities)?;
    let outputs = arguments.outputs(plan.images)?;
    let preview = arguments.preview.iter().filter(|path| !path.is_dir());
    let also = arguments.save_latents.iter().chain(&arguments.sheet);
    for path in outputs.iter().chain(also).chain(preview) {
        output::check_writable(path)?;
    }
    let native = (options.native && capabilities.kind == ModelKind::Sana)
        .then_some(SchedulerKind::DpmSolverNative);
    let scheduler = request
        .scheduler
        .or(native)
        .unwrap_or(pipeline.scheduler().kind());
    let stop = stop_on_interrupt()?;
    let mut control = Control::new(listener(arguments.preview.clone())).with_cancel(stop.clone());
    let started = Instant::now();
    let images = pipeline.generate(&request, &mut control);
    drop(control);
    let images = match images {
        Err(_) if stop.load(Ordering::Relaxed) => {
            return Err(Failure::failed("cancelled; nothing was written"));
        }
        other => other?,
    };
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &arguments.save_latents {
        save_latents(path, &images)?;
    }
    let mut written = Vec::new();
    for (index, (image, path)) in images.iter().zip(&outputs).enumerate() {
        let description = Description {
            request: &request,
            plan: &plan,
            scheduler: scheduler.name(),
            shift: request.shift.or(pipeline.scheduler().shift()),
            model: arguments.model.as_deref().unwrap_or(&capabilities.model),
            arguments,
            image,
            index,
        };
        write_picture(path, &description)?;
        written.push(json!({
            "path": path.display().to_string(), "prompt": image.prompt, "seed": image.seed, "index": index,
            "width": image.picture.width, "height": image.picture.height,
        }));
    }
    if let Some(path) = &arguments.sheet {
        write_sheet(path, &images)?;
    }
    if arguments.json {
        let timings = images.first().map(|first| {
            json!({
                "text": first.timings.text, "encode": first.timings.encode, "denoise": first.timings.denoise,
                "decode": images.iter().map(|image| image.timings.decode).sum::<f64>(),
            })
        });
        return output::print_json(&json!({
            "images": written, "model": arguments.model.as_ref().unwrap_or(&capabilities.model), "steps": plan.steps, "guidance": plan.guidance,
            "seconds": seconds, "stages_seconds": timings,
            "latents": arguments.save_latents.as_ref().map(|path| path.display().to_string()),
        }));
    }
    output::note(&format!("done in {}", text::seconds(seconds)));
    output::print(
        &outputs
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect::<String>(),
    )
}

/// Shows what the pipeline reports and writes previews.
fn listener(preview: Option<PathBuf>) -> impl FnMut(Event) + Send + 'static {
    let mut stages = Stages::new();
    let mut step = 0;
    move |event| match event {
        Event::Stage { name, total } => {
            // The stage of this name has no steps: it reads the weights.
            let shown = if name == "transformer" {
                "loading"
            } else {
                name
            };
            stages.stage(shown, total as u64);
        }
        Event::SaveMemory => crate::allocator::release_memory(),
        Event::Step { index, total, .. } => {
            step = index;
            stages.step(index as u64, total as u64);
        }
        Event::Log(line) => stages.line(&line),
        Event::Warning(warning) => stages.line(&format!("warning: {warning}")),
        Event::Memory {
            stage,
            needed,
            available,
        } if needed >= LARGE => {
            let free = available
                .map(|bytes| format!(" of {} available", text::bytes(bytes)))
                .unwrap_or_default();
            stages.line(&format!(
                "memory: about {}{free} for {stage}",
                text::bytes(needed)
            ));
        }
        Event::Memory { .. } => {}
        Event::Preview(picture) => {
            let Some(path) = &preview else { return };
            let path = if path.is_dir() {
                path.join(format!("step-{step:04}.png"))
            } else {
                path.clone()
            };
            let written = brisk_media::encode_png(&picture, &[])
                .map_err(Failure::from)
                .and_then(|bytes| Ok(brisk_store::write_atomic(&path, &bytes)?));
            if let Err(failure) = written {
                stages.line(&format!("warning: no preview: {failure}"));
            }
        }
        Event::Done { .. } => stages.finish(),
    }
}

/// Pictures in a row of a sheet.
const SHEET_COLUMNS: usize = 8;

/// Writes all pictures with their prompts below them.
fn write_sheet(path: &std::path::Path, images: &[GeneratedImage]) -> Result {
    let cells: Vec<_> = images
        .iter()
        .map(|image| (image.picture.clone(), image.prompt.clone()))
        .collect();
    let sheet = brisk_media::contact_sheet(&cells, SHEET_COLUMNS.min(cells.len()))?;
    let bytes = brisk_media::encode_png(&sheet, &[])?;
    Ok(brisk_store::write_atomic(path, &bytes)?)
}

/// Writes the final latents of all pictures as one tensor `latents` `[B,C,h,w]`.
fn save_latents(path: &std::path::Path, images: &[GeneratedImage]) -> Result {
    let Some(first) = images.first() else {
        return Ok(());
    };
    let [_, channels, height, width] = first.latents.shape;
    let values: Vec<f32> = images
        .iter()
        .flat_map(|image| image.latents.values.iter().copied())
        .collect();
    let tensor = tensors::floats(
        "latents",
        vec![images.len(), channels, height, width],
        &values,
    );
    Ok(write_safetensors(path, &[tensor], &Default::default())?)
}

impl ImageArguments {
    /// Names of the files, one a picture.
    fn outputs(&self, count: usize) -> Result<Vec<PathBuf>> {
        let extension = self
            .output
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or("");
        if ["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]
            .contains(&extension.to_ascii_lowercase().as_str())
        {
            return Err(Failure::usage(format!(
                "--output: {} would be no .{extension}; brisk writes PNG, name it .png",
                self.output.display()
            )));
        }
        Ok((0..count)
            .map(|index| numbered(&self.output, index, count))
            .collect())
    }

    /// The request, with its files read.
    fn request(&self) -> Result<ImageRequest> {
        let prompts: Vec<String> = self.words.iter().chain(&self.prompt).cloned().collect();
        if prompts.is_empty() {
            return Err(Failure::usage(
                "what should the picture show? For example: brisk image \"a red heart\"",
            ));
        }
        if prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            return Err(Failure::usage(
                "--prompt: is empty; say what the picture should show",
            ));
        }
        if self.words.len() > 1
            && self
                .words
                .iter()
                .all(|word| !word.contains(char::is_whitespace))
        {
            output::warn(&format!(
                "{} prompts of one word each; put quotes around a prompt of several words",
                self.words.len()
            ));
        }
        let (width, height) = self.size()?;
        let request = ImageRequest {
            prompts,
            negative_prompt: self.negative_prompt.clone(),
            width,
            height,
            steps: self.steps,
            guidance: self.guidance,
            seed: self.seed,
            images_per_prompt: self.images,
            scheduler: self.scheduler()?,
            shift: self.shift,
            pag_scale: self.pag_scale,
            pag_layers: (!self.pag_layers.is_empty()).then(|| self.pag_layers.clone()),
            pag_adaptive: self.pag_adaptive,
            control: self.control_image()?,
            init: self.init()?,
            scm_timesteps: (!self.scm_timesteps.is_empty()).then(|| self.scm_timesteps.clone()),
            max_sequence_length: self
                .max_sequence_length
                .unwrap_or(ImageRequest::default().max_sequence_length),
            instruction: self.instruction()?,
            binning: self.no_binning.then_some(false),
            latents: self.given_latents()?,
            decode: self.decode_mode()?,
            preview_interval: self
                .preview
                .as_ref()
                .map(|_| self.preview_interval.unwrap_or(1)),
        };
        Ok(request)
    }
}
