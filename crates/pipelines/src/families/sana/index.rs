//! What `model_index.json` says of a pipeline's folder.

use brisk_store::{ModelFolder, shown};
use serde_json::Value;

use super::load::LoadOptions;
use super::plan::ModelKind;
use crate::error::{Error, Result};

/// The file.
pub(super) const INDEX: &str = "model_index.json";

/// Pipelines by class name that this crate runs, with what they are.
pub(super) const CLASSES: &[(&str, ModelKind, &str)] = &[
    ("SanaPipeline", ModelKind::Sana, "SANA or SANA-1.5 pipeline"),
    (
        "SanaPAGPipeline",
        ModelKind::Sana,
        "SANA or SANA-1.5 pipeline",
    ),
    (
        CONTROL_CLASS,
        ModelKind::Sana,
        "SANA pipeline with ControlNet",
    ),
    (
        "SanaSprintPipeline",
        ModelKind::Sprint,
        "SANA-Sprint pipeline",
    ),
    (
        "SanaSprintImg2ImgPipeline",
        ModelKind::Sprint,
        "SANA-Sprint pipeline",
    ),
];

const CONTROL_CLASS: &str = "SanaControlNetPipeline";

/// Networks with the classes that are read.
const NETWORKS: [(&str, &[&str]); 3] = [
    ("transformer", &["SanaTransformer2DModel"]),
    ("vae", &["AutoencoderDC"]),
    ("text_encoder", &["Gemma2Model", "Gemma2ForCausalLM"]),
];

/// What it says.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) kind: ModelKind,
    class: String,
    /// Class of the scheduler.
    scheduler: Option<String>,
    /// What it names that nothing reads.
    unread: Vec<String>,
}

impl Index {
    /// The folder's; none where a transformer's file stands for it.
    ///
    /// # Errors
    /// A pipeline of another family, or components of classes that are not read.
    pub(super) fn read(folder: &ModelFolder, options: &LoadOptions) -> Result<Option<Self>> {
        if !folder.exists(INDEX) {
            if options.transformer_file.is_some() {
                return Ok(None);
            }
            return Err(Error::folder(
                folder.label(),
                "there is no model_index.json: expected the folder of a pipeline in the diffusers layout, \
                 or a transformer file together with a text encoder and an autoencoder",
            ));
        }
        let index = folder.read_json(INDEX)?;
        let replaced = |component: &str| match component {
            "vae" => options.vae.is_some(),
            "text_encoder" => options.text_encoder.is_some(),
            "transformer" => options.transformer_file.is_some(),
            _ => false,
        };
        Self::from_json(&index, replaced)
            .map(Some)
            .map_err(|problem| Error::folder(folder.label(), problem))
    }

    fn from_json(
        index: &Value,
        replaced: impl Fn(&str) -> bool,
    ) -> std::result::Result<Self, String> {
        let class = index
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some((class, kind, _)) = CLASSES.iter().find(|(name, ..)| *name == class) else {
            let family = class.strip_suffix("Pipeline").unwrap_or(class);
            let what = if class.is_empty() {
                format!("{INDEX} has no _class_name")
            } else {
                format!("this is {} ({})", shown(family), shown(class))
            };
            return Err(format!(
                "{what}; brisk image loads SANA, SANA-1.5 and SANA-Sprint"
            ));
        };
        for (component, known) in NETWORKS {
            let Some(entry) = index.get(component).filter(|_| !replaced(component)) else {
                continue;
            };
            match class_of(entry) {
                Some(found) if known.contains(&found) => {}
                found => {
                    let found = found.map_or_else(|| entry.to_string(), str::to_owned);
                    return Err(format!(
                        "{INDEX}: {component} is {}; expected {}",
                        shown(&found),
                        known.join(" or ")
                    ));
                }
            }
        }
        let entries = index.as_object().into_iter().flatten();
        let is_read = |name: &str| {
            name.starts_with('_')
                || ["tokenizer", "scheduler"].contains(&name)
                || (name == "controlnet" && *class == CONTROL_CLASS)
                || NETWORKS.iter().any(|(network, _)| *network == name)
        };
        let unread = entries.filter(|(name, entry)| !is_read(name) && !is_nothing(entry));
        Ok(Self {
            kind: *kind,
            class: (*class).to_owned(),
            scheduler: index.get("scheduler").and_then(class_of).map(str::to_owned),
            unread: unread
                .map(|(name, entry)| match class_of(entry) {
                    Some(class) => format!("{} ({})", shown(name), shown(class)),
                    None => shown(name),
                })
                .collect(),
        })
    }

    /// Whether the folder has a ControlNet.
    pub(super) fn brings_control(&self) -> bool {
        self.class == CONTROL_CLASS
    }

    /// What a user should know of it, where the scheduler's own file is of class `scheduler`.
    pub(super) fn notes(&self, scheduler: Option<&str>) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.unread.is_empty() {
            notes.push(format!(
                "nothing reads {} of {INDEX}; the reference may compute something by it",
                self.unread.join(", ")
            ));
        }
        if let (Some(named), Some(own)) = (&self.scheduler, scheduler)
            && named != own
        {
            notes.push(format!(
                "{INDEX} names the scheduler {}, its own file {}, which is taken; the reference takes the \
                 first (the option `scheduler` chooses)",
                shown(named),
                shown(own)
            ));
        }
        notes
    }
}

/// The class of a component's entry: its library and the class.
fn class_of(entry: &Value) -> Option<&str> {
    match entry.as_array().map(Vec::as_slice) {
        Some([Value::String(_), Value::String(class)]) => Some(class),
        _ => None,
    }
}

/// Whether an entry says that there is no such component, or nothing at all.
fn is_nothing(entry: &Value) -> bool {
    match entry {
        Value::Null | Value::Bool(false) => true,
        Value::Array(parts) => parts.iter().all(Value::is_null),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index() -> Value {
        json!({
            "_class_name": "SanaPipeline", "_diffusers_version": "0.30",
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "text_encoder": ["transformers", "Gemma2Model"], "tokenizer": ["transformers", "GemmaTokenizer"],
            "transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"],
        })
    }

    fn read(change: impl FnOnce(&mut Value)) -> std::result::Result<Index, String> {
        let mut index = index();
        change(&mut index);
        Index::from_json(&index, |_| false)
    }

    #[test]
    fn what_nothing_reads_is_named() {
        let plain = read(|_| {}).unwrap();
        assert!(plain.notes(Some("DPMSolverMultistepScheduler")).is_empty());
        assert!(plain.notes(None).is_empty());
        let more = read(|index| {
            index["image_encoder"] = json!(["transformers", "CLIPVisionModel"]);
            index["safety_checker"] = json!([null, null]);
            index["controlnet"] = json!(["diffusers", "SanaControlNetModel"]);
            index["force_upcast"] = json!(true);
        });
        let notes = more.unwrap().notes(None);
        let [note] = &notes[..] else {
            panic!("{notes:?}")
        };
        for word in [
            "image_encoder (CLIPVisionModel)",
            "controlnet",
            "force_upcast",
        ] {
            assert!(note.contains(word), "{note}");
        }
        assert!(!note.contains("safety_checker"), "{note}");
        let control = read(|index| {
            index["_class_name"] = CONTROL_CLASS.into();
            index["controlnet"] = json!(["diffusers", "SanaControlNetModel"]);
        });
        assert!(control.unwrap().notes(None).is_empty());
        let other = plain.notes(Some("FlowMatchEulerDiscreteScheduler"));
        assert!(
            other[0].contains("FlowMatchEulerDiscreteScheduler"),
            "{other:?}"
        );
    }

    #[test]
    fn other_classes_are_refused() {
        for (told, change) in [
            ("no _class_name", json!({"_class_name": null})),
            ("Flux", json!({"_class_name": "FluxPipeline"})),
            (
                "vae is AutoencoderKL",
                json!({"vae": ["diffusers", "AutoencoderKL"]}),
            ),
            (
                "transformer is [null,null]",
                json!({"transformer": [null, null]}),
            ),
            (
                "text_encoder is \"Gemma2Model\"",
                json!({"text_encoder": "Gemma2Model"}),
            ),
        ] {
            let refused = read(|index| {
                let keys = change.as_object().unwrap().clone();
                index.as_object_mut().unwrap().extend(keys);
            });
            let refused = refused.unwrap_err();
            assert!(refused.contains(told) && refused.len() < 300, "{refused}");
        }
        let long = "x".repeat(100_000);
        let refused = read(|index| index["_class_name"] = long.into()).unwrap_err();
        assert!(refused.len() < 500);
    }
}
