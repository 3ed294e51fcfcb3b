//! What a request leaves open, and the model's folder decides (`generation_config.json`).

use brisk_store::ModelFolder;
use serde::Deserialize;
use serde_json::Value;

use crate::default_guidance::GenerationConfig;
use crate::error::{Error, Result};
use crate::options::{Key, OptionValue, keys, video_keys};
use crate::request::{FirstFrame, FramePlace};

/// The keys that are read: the arguments of diffusers' pipelines, frames a second, whether the frames around the given
/// one are part of the clip, and how first frames look that nobody gives.
const KEYS: [&str; 8] = [
    "guidance_scale",
    "num_inference_steps",
    "num_frames",
    "width",
    "height",
    "frame_rate",
    KEPT,
    FIRST_FRAMES,
];
const KEPT: &str = "keeps_first_frames";
const FIRST_FRAMES: &str = "first_frames";
/// Words that a prompt of a thing begins with and the name of the thing does not.
const ARTICLES: [&str; 3] = ["a ", "an ", "the "];

/// A kind of first frame that the model was trained on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownFirstFrame {
    /// Last words of a prompt, which say what happens; what is before them is in the frame.
    ends_with: String,
    /// See [`FramePlace`].
    centre: [f64; 2],
    side: f64,
}

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
    first_frames: Vec<KnownFirstFrame>,
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
            first_frames: first_frames(&config)?,
        })
    }

    /// The first frame for a prompt: of what it says before the words of a known motion, at that motion's place.
    pub fn first_frame(&self, prompt: &str) -> FirstFrame {
        let said = prompt.trim().trim_end_matches(['.', '!']);
        let found = self.first_frames.iter().find_map(|known| {
            let thing = said.strip_suffix(&known.ends_with)?;
            let thing = thing.strip_suffix(' ')?.trim();
            let name = ARTICLES.iter().find_map(|word| thing.strip_prefix(word));
            Some((name.unwrap_or(thing), known)).filter(|(name, _)| !name.is_empty())
        });
        match found {
            Some((name, known)) => FirstFrame {
                prompt: name.to_owned(),
                place: Some(FramePlace {
                    centre: known.centre,
                    side: known.side,
                }),
            },
            None => FirstFrame {
                prompt: prompt.to_owned(),
                place: None,
            },
        }
    }
}

fn first_frames(config: &GenerationConfig) -> Result<Vec<KnownFirstFrame>> {
    let Some(value) = config.get(FIRST_FRAMES) else {
        return Ok(Vec::new());
    };
    let refused =
        |reason: String| Error::config(&config.label, format!("{FIRST_FRAMES}: {reason}"));
    let known =
        Vec::<KnownFirstFrame>::deserialize(value).map_err(|error| refused(error.to_string()))?;
    for KnownFirstFrame {
        ends_with,
        centre,
        side,
    } in &known
    {
        let on_canvas = centre.iter().all(|along| (0.0..=1.0).contains(along));
        if ends_with.is_empty() || !on_canvas || !(0.05..=1.0).contains(side) {
            return Err(refused(format!(
                "found ends_with {ends_with:?}, centre {centre:?}, side {side}; expected words, a centre of 0 to 1 and a \
                 side of 0.05 to 1"
            )));
        }
    }
    Ok(known)
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
            (
                r#"{"first_frames": [{"ends_with": "jumps"}]}"#,
                "first_frames: missing field",
            ),
            (
                r#"{"first_frames": [{"ends_with": "jumps", "centre": [0.5, 0.5], "side": 2}]}"#,
                "side 2",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_first_frame_shows_what_is_said_before_the_motion() {
        let place = tempfile::tempdir().unwrap();
        let folder = ModelFolder::Disk(place.path().to_owned());
        let text =
            r#"{"first_frames": [{"ends_with": "moves up", "centre": [0.5, 0.75], "side": 0.4}]}"#;
        std::fs::write(place.path().join("generation_config.json"), text).unwrap();
        let defaults = Defaults::open(&folder).unwrap();
        for (prompt, shown) in [
            ("a red heart moves up", "red heart"),
            ("fish moves up.", "fish"),
        ] {
            let found = defaults.first_frame(prompt);
            assert_eq!(found.prompt, shown);
            let place = found.place.unwrap();
            assert_eq!((place.centre, place.side), ([0.5, 0.75], 0.4));
        }
        for prompt in ["a red heart jumps", "moves up", "a removes up"] {
            let found = defaults.first_frame(prompt);
            assert_eq!((found.prompt.as_str(), found.place), (prompt, None));
        }
    }
}
