//! Finds the parts of a model, reads what their files say, and holds it together.

use std::sync::Arc;

use brisk_media::MAX_FRAMES;
use brisk_models::component::{ComponentConfig, LoadSettings};
use brisk_models::language_model::{LanguageModel, LanguageModelConfig};
use brisk_models::registry;
use brisk_models::vila_u::projector::{Projector, ProjectorConfig, Widths};
use brisk_models::vila_u::tower::{Parts, SiglipConfig, Tower, TowerConfig};
use brisk_models::vila_u::{LANGUAGE_MODEL, PROJECTOR, TOWER};
use brisk_nn::{Quantization, Storage, Weights};
use brisk_store::ModelFolder;
use brisk_text::Tokenizer;
use serde_json::Value;

use super::picture::Aspect;
use super::prompt::FRAMES;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::known_prompts::KnownPrompts;
use crate::options::{keys, text_keys};
use crate::request::OpenSettings;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "llm/tokenizer.model";
const GENERATION: &str = "llm/generation_config.json";
const PREPROCESSOR: &str = "vision_tower/preprocessor_config.json";

/// Frames of a clip where the configuration says nothing.
const CLIP_FRAMES: usize = 8;

/// Values of `model_type` and `architectures` of a whole model.
const CLASSES: [&str; 2] = ["vila_u_llama", "VILAULlamaModel"];

/// The folder that holds the parts: the model's, or `model` inside it, as training leaves it.
pub(super) fn root(folder: &ModelFolder) -> Option<ModelFolder> {
    let ours = |folder: &ModelFolder| {
        let config = folder
            .exists(CONFIG)
            .then(|| folder.read_json(CONFIG).ok())??;
        let classes = registry::classes(&config);
        classes
            .iter()
            .any(|class| CLASSES.contains(class))
            .then_some(())
    };
    if ours(folder).is_some() {
        return Some(folder.clone());
    }
    let ModelFolder::Disk(path) = folder else {
        return None;
    };
    let inside = ModelFolder::Disk(path.join("model"));
    ours(&inside).map(|()| inside)
}

/// How texts are drawn where a request does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawing {
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: usize,
}

/// Everything that is known of a model before its weights are read.
pub(super) struct Files {
    pub label: String,
    pub language_config: LanguageModelConfig,
    language: Opened<dyn ComponentConfig>,
    pub tower_config: TowerConfig,
    tower: Opened<dyn ComponentConfig>,
    projector_config: ProjectorConfig,
    /// Absent where nothing is projected.
    projector: Option<Opened<dyn ComponentConfig>>,
    pub aspect: Aspect,
    /// Absent where ids come in and go out.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Frames of a clip that the model was taught to see and to make.
    pub clip_frames: usize,
    /// Ids of the tokens that frame pictures.
    pub frames: [u32; 4],
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    pub drawing: Drawing,
    pub known_prompts: Option<KnownPrompts>,
    /// Keys of the configurations that nothing reads, each with its file.
    unread_keys: Vec<String>,
    pub quantization: Quantization,
}

impl Files {
    pub fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Self> {
        let label = folder.label();
        let Some(root) = root(folder) else {
            let message = "there is no config.json of a VILA-U model: expected a folder with config.json, llm/, \
                           vision_tower/ and mm_projector/";
            return Err(Error::folder(label, message));
        };
        let asked = &settings.options;
        let wanted = Wanted {
            variant: asked.get(&keys::VARIANT),
            random: settings.random,
            ..Wanted::default()
        }
        .without_low_bit();
        let place = |component: &brisk_models::component::Component| {
            ComponentFolder::new(&root, component.folders[0])
        };
        let places = [&LANGUAGE_MODEL, &TOWER, &PROJECTOR].map(place);
        let [language, tower, projector] = &places;
        let language_config = language.config(LanguageModelConfig::llama)?;
        let tower_config = tower_config(tower)?;
        let projector_config = projector.config(ProjectorConfig::from_json)?;
        let quantize = asked
            .get(&text_keys::QUANTIZE)
            .or_else(|| asked.get(&keys::QUANTIZE_TRANSFORMER));
        let whole = root.read_json(CONFIG)?;
        let whole_label = format!("{}/{CONFIG}", root.label());
        let mut files = Self {
            label,
            language: language.open_as(&LANGUAGE_MODEL, &wanted)?,
            tower: tower.open_as(&TOWER, &wanted)?,
            projector: match projector_config {
                ProjectorConfig::Identity => None,
                _ => Some(projector.open_as(&PROJECTOR, &wanted)?),
            },
            aspect: Aspect::read(&whole, &whole_label)?,
            tokenizer: None,
            clip_frames: clip_frames(&whole, &whole_label)?,
            frames: [0; 4],
            ends: language_config.eos_token_ids.clone(),
            drawing: Drawing {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
            },
            known_prompts: KnownPrompts::read(&root)?,
            unread_keys: ComponentFolder::unread_keys_of(&places)?,
            quantization: Quantization::from_name(quantize.as_deref().unwrap_or("none"))?,
            language_config,
            tower_config,
            projector_config,
        };
        files.check_whole(&whole, &whole_label)?;
        files.check_preprocessor(&root)?;
        files.read_generation(&root)?;
        if !asked.get(&text_keys::WITHOUT_TOKENIZER).unwrap_or(false) {
            files.read_tokenizer(&root)?;
        }
        Ok(files)
    }

    /// What the whole model's configuration says of its parts.
    fn check_whole(&self, whole: &Value, label: &str) -> Result<()> {
        let hidden = self.language_config.hidden_size;
        for (key, expected, of) in [
            ("hidden_size", hidden, "`hidden_size` of llm/config.json"),
            (
                "mm_hidden_size",
                self.tower_config.embed_dim,
                "`rqvaesiglip.embed_dim` of vision_tower/config.json",
            ),
        ] {
            if let Some(found) = whole.get(key).and_then(Value::as_u64)
                && found != expected as u64
            {
                return Err(Error::config(
                    label,
                    format!(
                        "`{key}` is {found}, but {of} is {expected}; they do not belong together"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Pictures are prepared at the size that the tower reads.
    fn check_preprocessor(&self, root: &ModelFolder) -> Result<()> {
        if !root.exists(PREPROCESSOR) {
            return Ok(());
        }
        let file = root.read_json(PREPROCESSOR)?;
        let label = format!("{}/{PREPROCESSOR}", root.label());
        if let Some(siglip) = &self.tower_config.siglip {
            for (key, side) in [
                ("size", "height"),
                ("size", "width"),
                ("crop_size", "height"),
            ] {
                let found = file.get(key).and_then(|size| size.get(side)?.as_u64());
                if let Some(found) = found
                    && found != siglip.image_size as u64
                {
                    return Err(Error::config(
                        &label,
                        format!(
                            "`{key}.{side}` is {found}, but the vision tower reads pictures of {} pixels; they \
                             do not belong together",
                            siglip.image_size
                        ),
                    ));
                }
            }
        }
        for key in ["image_mean", "image_std"] {
            let values = file.get(key).and_then(Value::as_array);
            let other = |value: &&Value| value.as_f64() != Some(0.5);
            if let Some(found) = values.and_then(|values| values.iter().find(other)) {
                return Err(Error::config(
                    &label,
                    format!("`{key}` holds {found}; expected 0.5"),
                ));
            }
        }
        Ok(())
    }

    /// Tokens that end a text, and how tokens are drawn.
    fn read_generation(&mut self, root: &ModelFolder) -> Result<()> {
        if !root.exists(GENERATION) {
            return Ok(());
        }
        let file = root.read_json(GENERATION)?;
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match file.get("eos_token_id") {
            Some(Value::Array(list)) => self.ends.extend(list.iter().filter_map(id)),
            Some(one) => self.ends.extend(id(one)),
            None => {}
        }
        self.ends.sort_unstable();
        self.ends.dedup();
        if file.get("do_sample").and_then(Value::as_bool) == Some(true) {
            let number = |key: &str| file.get(key).and_then(Value::as_f64);
            let positive = |value: &f64| value.is_finite() && *value > 0.0;
            let top_k = file.get("top_k").and_then(Value::as_u64);
            self.drawing = Drawing {
                temperature: number("temperature").filter(positive).unwrap_or(1.0),
                top_p: number("top_p")
                    .filter(|p| *p > 0.0 && *p <= 1.0)
                    .unwrap_or(1.0),
                top_k: top_k.and_then(|k| usize::try_from(k).ok()).unwrap_or(0),
            };
        }
        Ok(())
    }

    fn read_tokenizer(&mut self, root: &ModelFolder) -> Result<()> {
        let json = |file: &str| match root.exists(file) {
            true => Ok(root.read_json(file)?),
            false => Ok(Value::Null),
        };
        if !root.exists(TOKENIZER) {
            let message = format!("there is no {TOKENIZER}; the folder is incomplete");
            return Err(Error::folder(root.label(), message));
        }
        let label = format!("{}/{TOKENIZER}", root.label());
        let settings: Result<Value> = json("llm/tokenizer_config.json");
        let added: Result<Value> = json("llm/added_tokens.json");
        let (settings, added) = (settings?, added?);
        let bytes = root.read(TOKENIZER)?;
        let tokenizer = Tokenizer::from_sentencepiece(&bytes, &settings, &added, &label)?;
        let (tokens, rows) = (tokenizer.vocabulary_size(), self.language_config.vocab_size);
        for (frame, id) in FRAMES.iter().zip(&mut self.frames) {
            *id = tokenizer.token_id(frame).ok_or_else(|| {
                Error::folder(
                    root.label(),
                    format!(
                        "the tokenizer has no {frame} among its {tokens} tokens, `vocab_size` of llm/config.json is \
                         {rows}; expected {} in added_tokens.json or tokenizer_config.json, the last four of {rows}",
                        FRAMES.join(", ")
                    ),
                )
            })?;
        }
        if tokens != rows {
            return Err(Error::folder(
                root.label(),
                format!(
                    "the tokenizer has {tokens} tokens, but `vocab_size` of llm/config.json is {rows}; they do not \
                     belong together"
                ),
            ));
        }
        self.tokenizer = Some(Arc::new(tokenizer));
        Ok(())
    }

    /// What a user should know of the model's files.
    pub fn unread_warning(&self) -> Option<String> {
        if self.unread_keys.is_empty() {
            return None;
        }
        Some(format!(
            "nothing reads {} of the model's configuration; the reference may compute something by it",
            self.unread_keys.join(", ")
        ))
    }

    fn settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.quantization,
            ..LoadSettings::default()
        }
    }

    /// The language model.
    pub fn load_language(&self) -> Result<LanguageModel> {
        let weights = self.language.parameters(&self.settings())?.build()?;
        Ok(LanguageModel::load(&self.language_config, &weights)?)
    }

    /// The tower with some of its parts.
    pub fn load_tower(&self, parts: Parts) -> Result<Tower> {
        let weights = self.tower.parameters(&self.settings())?.build()?;
        Ok(Tower::load(&self.tower_config, &weights, parts)?)
    }

    /// The projector.
    pub fn load_projector(&self) -> Result<Projector> {
        let widths = Widths {
            codeword: self.tower_config.embed_dim,
            hidden: self.language_config.hidden_size,
        };
        let weights = match &self.projector {
            Some(projector) => projector.parameters(&LoadSettings::default())?.build()?,
            None => Weights::random(0, Storage::F32),
        };
        Ok(Projector::load(self.projector_config, widths, &weights)?)
    }

    /// Pixels of a picture's side that the tower reads.
    pub fn read_side(&self) -> Result<usize> {
        Ok(self.tower_config.siglip()?.image_size)
    }

    /// Bytes of the weights: of the language model as they are kept, of tower and projector as stored.
    pub fn weight_bytes(&self) -> [u64; 2] {
        let config = &self.language_config;
        let table = (config.vocab_size as u64).saturating_mul(config.hidden_size as u64);
        let layers = config.parameters().saturating_sub(table);
        let stored = self.language.bytes_per_value();
        let language = crate::memory::quantized_bytes(table, layers, stored, self.quantization);
        let projector = self.projector.as_ref().map_or(0, Opened::bytes);
        [language, self.tower.bytes().saturating_add(projector)]
    }

    /// Bytes of the keys and values of so many positions.
    pub fn cache_bytes(&self, positions: usize) -> u64 {
        let language = &self.language_config;
        let values = 2 * language.num_layers as u64 * language.key_width() as u64;
        (4 * values).saturating_mul(positions as u64)
    }

    /// Bytes of a weight of the tower as it is stored.
    pub fn tower_weight_bytes(&self) -> f64 {
        self.tower.bytes_per_value()
    }

    /// Bytes of the weights of some of the tower's parts, as they are kept.
    pub fn tower_part_bytes(&self, parts: Parts) -> u64 {
        let stored = self.tower.bytes_per_value();
        let all = self.tower_config.parameter_count(parts);
        let depth = match parts.depth {
            true => self.tower_config.head.parameters(),
            false => 0,
        };
        let rest = all.saturating_sub(depth) as f64 * stored;
        (rest + depth as f64 * self.quantization.bytes_per_value(stored)) as u64
    }

    /// Bytes of a weight of the language model as it is kept.
    pub fn language_weight_bytes(&self) -> f64 {
        let stored = self.language.bytes_per_value();
        self.quantization.bytes_per_value(stored)
    }
}

/// Frames of a clip, by the configuration of the whole model.
fn clip_frames(whole: &Value, label: &str) -> Result<usize> {
    match whole.get("num_video_frames") {
        None | Some(Value::Null) => Ok(CLIP_FRAMES),
        Some(value) => {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            count
                .filter(|count| (1..=MAX_FRAMES).contains(count))
                .ok_or_else(|| {
                    let message =
                        format!("`num_video_frames` is {value}; expected 1 to {MAX_FRAMES}");
                    Error::config(label, message)
                })
        }
    }
}

/// A tower's configuration with the sizes of SigLIP, wherever they stand.
///
/// # Errors
/// Files that are missing or damaged, or that do not belong together.
pub fn tower_config(place: &ComponentFolder) -> Result<TowerConfig> {
    let mut config = place.config(TowerConfig::from_json)?;
    for folder in config.siglip_folders() {
        let file = format!("{folder}/{CONFIG}");
        if !place.exists(&file) {
            continue;
        }
        let label = place.label(&file);
        let siglip = SiglipConfig::from_json(&place.read(&file)?, &label)?;
        config.set_siglip(siglip, &place.config_label(), &label)?;
    }
    Ok(config)
}
