//! The PNG files that `brisk image` writes, with the request inside.

use std::path::{Path, PathBuf};

use brisk_media::encode_png;
use brisk_pipelines::ImageRequest;
use brisk_pipelines::request::Plan;
use brisk_pipelines::sana::GeneratedImage;
use brisk_store::write_atomic;
use serde_json::{Value, json};

use super::ImageArguments;
use crate::failure::Result;

/// Keyword of the PNG text that holds the request as JSON.
pub const REQUEST_KEYWORD: &str = "brisk";
/// Keyword that picture managers show.
const PEOPLE_KEYWORD: &str = "parameters";

/// Everything that made a picture.
pub struct Description<'a> {
    /// The request.
    pub request: &'a ImageRequest,
    /// Its defaults filled in.
    pub plan: &'a Plan,
    /// Name of the sampler.
    pub scheduler: &'a str,
    /// Shift of the time grid, where there is one.
    pub shift: Option<f64>,
    /// Name of the model.
    pub model: &'a str,
    /// The command line.
    pub arguments: &'a ImageArguments,
    /// The result.
    pub image: &'a GeneratedImage,
    /// Its number.
    pub index: usize,
}

impl Description<'_> {
    fn json(&self) -> Value {
        let Self {
            request,
            plan,
            arguments,
            image,
            ..
        } = self;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let mut document = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.model,
            "prompt": image.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": image.seed,
            "index": self.index,
            "images": plan.images,
            "width": image.picture.width,
            "height": image.picture.height,
            "generated_width": plan.width,
            "generated_height": plan.height,
            "steps": plan.steps,
            "guidance": plan.guidance,
            "scheduler": self.scheduler,
            "shift": self.shift,
            "pag": plan.pag.as_ref().map(|pag| json!({"scale": pag.scale, "adaptive": pag.adaptive, "layers": pag.layers})),
            "angles": plan.angles,
            "init_image": path(&arguments.init_image),
            "strength": plan.strength,
            "control_image": path(&arguments.control_image),
            "control_scale": request.control.as_ref().map(|control| control.scale),
            "controlnet": arguments.controlnet,
            "lora": path(&arguments.lora),
            "lora_scale": arguments.lora.as_ref().map(|_| arguments.lora_scale.unwrap_or(1.0)),
            "transformer": path(&arguments.transformer),
            "vae": arguments.vae,
            "text_encoder": arguments.text_encoder,
            "variant": arguments.variant,
            "native": arguments.native.then_some(true),
            "instruction": arguments.instruction,
            "latents": path(&arguments.latents),
        });
        if let Some(entries) = document.as_object_mut() {
            entries.retain(|_, value| !value.is_null());
        }
        document
    }

    /// The form that picture managers know.
    fn for_people(&self) -> String {
        let Self {
            request,
            plan,
            image,
            ..
        } = self;
        let mut text = format!("{}\n", image.prompt);
        if let Some(negative) = request
            .negative_prompt
            .as_deref()
            .filter(|negative| !negative.is_empty())
        {
            text.push_str(&format!("Negative prompt: {negative}\n"));
        }
        text.push_str(&format!(
            "Steps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}, Version: brisk {}",
            plan.steps,
            self.scheduler,
            plan.guidance,
            image.seed,
            image.picture.width,
            image.picture.height,
            self.model,
            env!("CARGO_PKG_VERSION"),
        ));
        text
    }
}

/// Writes the picture, whole or not at all.
pub fn write_picture(path: &Path, description: &Description) -> Result {
    let metadata = [
        (REQUEST_KEYWORD.to_owned(), description.json().to_string()),
        (PEOPLE_KEYWORD.to_owned(), description.for_people()),
    ];
    let bytes = encode_png(&description.image.picture, &metadata)?;
    Ok(write_atomic(path, &bytes)?)
}
