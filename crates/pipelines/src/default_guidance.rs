//! The guidance that a model's folder asks for.

use brisk_store::{ModelFolder, shown};
use serde_json::Value;

use crate::error::{Error, Result};

/// File in a model's folder with its own default, `guidance_scale`.
const GENERATION_FILE: &str = "generation_config.json";

/// The guidance that a model is drawn with where none is asked for: its folder's, else `published`.
///
/// # Errors
/// A file with other keys, or a number outside 0 to 100.
pub(crate) fn default_guidance(folder: &ModelFolder, published: f32) -> Result<f32> {
    if !folder.exists(GENERATION_FILE) {
        return Ok(published);
    }
    let label = format!("{}/{GENERATION_FILE}", folder.label());
    let config = folder.read_json(GENERATION_FILE)?;
    let known = |key: &str| {
        key == "guidance_scale" || key == "transformers_version" || key.starts_with('_')
    };
    let Value::Object(object) = &config else {
        let found = shown(&config.to_string());
        return Err(Error::config(
            label,
            format!("found {found}, expected an object such as {{\"guidance_scale\": 4.5}}"),
        ));
    };
    let mut keys = object.keys();
    if let Some(unknown) = keys.find(|key| !known(key)) {
        return Err(Error::config(
            label,
            format!(
                "the key {} is not known; remove it, expected guidance_scale",
                shown(unknown)
            ),
        ));
    }
    match config.get("guidance_scale") {
        None => Ok(published),
        Some(value) => value
            .as_f64()
            .filter(|value| (0.0..=100.0).contains(value))
            .map(|value| value as f32)
            .ok_or_else(|| {
                let message = format!("guidance_scale is {value}, expected a number from 0 to 100");
                Error::config(&label, message)
            }),
    }
}
