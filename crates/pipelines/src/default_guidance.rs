//! How a model's folder asks to be drawn with.

use brisk_store::{ModelFolder, shown};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// File in a model's folder with its own defaults.
const GENERATION_FILE: &str = "generation_config.json";

/// The key of the guidance.
const GUIDANCE: &str = "guidance_scale";

/// What a model's folder says of how it is drawn with, by keys of which all are `known`.
pub(crate) struct GenerationConfig {
    /// Names the file in messages.
    pub label: String,
    keys: Map<String, Value>,
}

impl GenerationConfig {
    /// Reads the file; empty where there is none.
    ///
    /// # Errors
    /// A file with other keys.
    pub fn open(folder: &ModelFolder, known: &[&str]) -> Result<Self> {
        let label = format!("{}/{GENERATION_FILE}", folder.label());
        let keys = Map::new();
        if !folder.exists(GENERATION_FILE) {
            return Ok(Self { label, keys });
        }
        let config: Value = folder.read_json(GENERATION_FILE)?;
        let Value::Object(keys) = config else {
            let found = shown(&config.to_string());
            return Err(Error::config(
                label,
                format!("found {found}, expected an object such as {{\"guidance_scale\": 4.5}}"),
            ));
        };
        let is_known = |key: &str| {
            known.contains(&key) || key == "transformers_version" || key.starts_with('_')
        };
        if let Some(unknown) = keys.keys().find(|key| !is_known(key)) {
            return Err(Error::config(
                label,
                format!(
                    "the key {} is not known; remove it, expected {}",
                    shown(unknown),
                    known.join(", ")
                ),
            ));
        }
        Ok(Self { label, keys })
    }

    /// What stands at a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// The guidance, where the file says it.
    ///
    /// # Errors
    /// A number outside 0 to 100.
    pub fn guidance(&self) -> Result<Option<f32>> {
        let Some(value) = self.get(GUIDANCE) else {
            return Ok(None);
        };
        let found = value
            .as_f64()
            .filter(|value| (0.0..=100.0).contains(value))
            .map(|value| value as f32);
        found.map(Some).ok_or_else(|| {
            let message = format!("guidance_scale is {value}, expected a number from 0 to 100");
            Error::config(&self.label, message)
        })
    }
}

/// The guidance that a model is drawn with where none is asked for: its folder's, else `published`.
///
/// # Errors
/// A file with other keys, or a number outside 0 to 100.
pub(crate) fn default_guidance(folder: &ModelFolder, published: f32) -> Result<f32> {
    let config = GenerationConfig::open(folder, &[GUIDANCE])?;
    Ok(config.guidance()?.unwrap_or(published))
}
