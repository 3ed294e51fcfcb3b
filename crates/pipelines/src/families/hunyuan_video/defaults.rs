//! What a request leaves open, and the model's folder decides (`generation_config.json`).

use brisk_store::ModelFolder;
use serde_json::Value;

use crate::default_guidance::GenerationConfig;
use crate::error::{Error, Result};
use crate::options::{Key, OptionValue, keys, video_keys};

/// The keys that are read: the arguments of diffusers' pipelines, frames a second, and whether the frames around the given
/// one are part of the clip.
const KEYS: [&str; 7] = [
    "guidance_scale",
    "num_inference_steps",
    "num_frames",
    "width",
    "height",
    "frame_rate",
    KEPT,
];
const KEPT: &str = "keeps_first_frames";

/// Values where a request names none.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    pub guidance: Option<f32>,
    pub steps: Option<usize>,
    pub frames: Option<usize>,
    /// Width and height.
    pub size: [Option<usize>; 2],
    pub rate: Option<f64>,
    /// Whether a clip begins with the frame that was given. The reference leaves out the group of frames that it is in,
    /// as published weights were not taught to draw it; Magic 1-For-1 keeps it.
    pub keeps_first_frames: bool,
}

impl Defaults {
    /// Reads the file; none of it where there is none.
    ///
    /// # Errors
    /// Unknown keys, and values that a request would be refused for.
    pub fn open(folder: &ModelFolder) -> Result<Self> {
        let config = GenerationConfig::open(folder, &KEYS)?;
        let whole = |name: &str, key: &'static Key<usize>| number(&config, name, key, as_usize);
        let keeps_first_frames = match config.get(KEPT) {
            None => false,
            Some(Value::Bool(kept)) => *kept,
            Some(other) => {
                return Err(Error::config(
                    &config.label,
                    format!("{KEPT} is {other}, expected true or false"),
                ));
            }
        };
        Ok(Self {
            guidance: config.guidance()?,
            steps: whole("num_inference_steps", &keys::STEPS)?,
            frames: whole("num_frames", &video_keys::FRAMES)?,
            size: [
                whole("width", &video_keys::WIDTH)?,
                whole("height", &video_keys::HEIGHT)?,
            ],
            rate: number(&config, "frame_rate", &video_keys::FRAME_RATE, |value| {
                value.as_f64()
            })?,
            keeps_first_frames,
        })
    }
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|value| usize::try_from(value).ok())
}

/// A value that an option would take.
fn number<T: OptionValue>(
    config: &GenerationConfig,
    name: &str,
    key: &'static Key<T>,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    let Some(value) = config.get(name) else {
        return Ok(None);
    };
    let refused = |reason: String| Err(Error::config(&config.label, format!("{name}: {reason}")));
    let Some(found) = read(value) else {
        return refused(format!("found {value}, expected a number"));
    };
    let value = found.into_value();
    let definition = key.definition();
    if let Err(error) = definition.kind.check(definition.name, &value) {
        return refused(error.to_string());
    }
    Ok(T::from_value(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_decides_and_mistakes_are_named() {
        let place = tempfile::tempdir().unwrap();
        let folder = ModelFolder::Disk(place.path().to_owned());
        let read = |text: &str| {
            std::fs::write(place.path().join("generation_config.json"), text).unwrap();
            Defaults::open(&folder).map_err(|error| error.to_string())
        };
        assert!(Defaults::open(&folder).unwrap().frames.is_none());
        let found = read(
            r#"{"num_frames": 17, "width": 64, "num_inference_steps": 4, "guidance_scale": 1.5, "frame_rate": 8,
                "keeps_first_frames": true}"#,
        )
        .unwrap();
        assert_eq!((found.frames, found.size), (Some(17), [Some(64), None]));
        assert_eq!((found.steps, found.guidance), (Some(4), Some(1.5)));
        assert!(found.rate == Some(8.0) && found.keeps_first_frames);
        for (text, word) in [
            (r#"{"num_frames": 0}"#, "num_frames"),
            (r#"{"num_inference_steps": 1.5}"#, "num_inference_steps"),
            (r#"{"frame_rate": 1000}"#, "frame_rate"),
            (r#"{"keeps_first_frames": 1}"#, "keeps_first_frames is 1"),
            (r#"{"frames": 5}"#, "frames"),
            (r#"{"guidance_scale": 101}"#, "guidance_scale is 101"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
