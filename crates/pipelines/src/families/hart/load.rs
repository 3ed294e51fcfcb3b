//! Finds the parts of a model, reads their configurations and opens their weights.

use std::path::{Path, PathBuf};

use brisk_models::component::{ComponentConfig, LoadSettings};
use brisk_models::hart::{self, Scales, tokenizer, transformer};
use brisk_models::qwen2::Qwen2Config;
use brisk_models::registry;
use brisk_nn::Quantization;
use brisk_store::{ModelFolder, shown};

use super::options as own;
use super::prompt::PromptTokenizer;
use crate::default_guidance::default_guidance;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::known_prompts::KnownPrompts;
use crate::options::keys;
use crate::request::{OpenSettings, RandomWeights};
use crate::residency::Residency;

const CONFIG: &str = "config.json";
/// Guidance that published models are drawn with.
const GUIDANCE: f32 = 4.5;
/// File in a model's folder with the text that is read before every prompt.
pub(super) const SYSTEM_PROMPT_FILE: &str = "system_prompt.txt";

/// How a model is loaded.
#[derive(Debug, Clone)]
pub(super) struct LoadOptions {
    pub variant: Option<String>,
    /// Weights as they were trained last in place of their average.
    pub trained: bool,
    pub exact: bool,
    pub text_quantization: Quantization,
    pub transformer_quantization: Quantization,
    pub residency: Residency,
    random: Option<RandomWeights>,
}

impl LoadOptions {
    pub fn read(settings: &OpenSettings) -> Result<Self> {
        let asked = &settings.options;
        let quantization = |key| -> Result<Quantization> {
            let name = asked.get(key).unwrap_or_else(|| "none".to_owned());
            Ok(Quantization::from_name(&name)?)
        };
        Ok(Self {
            variant: asked.get(&keys::VARIANT),
            trained: asked.get(&own::NO_EMA).unwrap_or(false),
            exact: asked.get(&keys::EXACT).unwrap_or(false),
            text_quantization: quantization(&keys::QUANTIZE_TEXT_ENCODER)?,
            transformer_quantization: quantization(&keys::QUANTIZE_TRANSFORMER)?,
            residency: Residency::asked(asked),
            random: settings.random,
        })
    }

    fn wanted(&self) -> Wanted {
        let wanted = Wanted {
            variant: self.variant.clone(),
            random: self.random,
            ..Wanted::default()
        };
        wanted.without_low_bit()
    }

    pub fn text_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.text_quantization,
            ..LoadSettings::default()
        }
    }

    pub fn transformer_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.transformer_quantization,
            ..LoadSettings::default()
        }
    }

    pub fn tokenizer_settings(&self) -> LoadSettings {
        LoadSettings {
            exact: self.exact,
            ..LoadSettings::default()
        }
    }
}

/// Where a model lies.
pub(super) struct Place {
    /// The folder of all parts.
    root: ModelFolder,
    /// The transformer's in it.
    transformer: &'static str,
}

impl Place {
    /// The model of a folder: the one that holds all parts, or the transformer's own, as the reference
    /// takes it, beside which the others lie.
    pub fn find(folder: &ModelFolder) -> Option<Self> {
        let inside = hart::COMPONENT.folders[0];
        let ours = |sub: &str| {
            let place = ComponentFolder::new(folder, sub);
            let config = place.has_config().then(|| place.config_json().ok())??;
            let component = registry::of_config(&config)?;
            std::ptr::eq(component, &hart::COMPONENT).then_some(())
        };
        if ours(inside).is_some() {
            return Some(Self {
                root: folder.clone(),
                transformer: inside,
            });
        }
        ours("")?;
        let beside = match folder {
            ModelFolder::Disk(path) => parent(path, inside),
            ModelFolder::Embedded { .. } => None,
        };
        Some(match beside {
            Some(root) => Self {
                root: ModelFolder::Disk(root),
                transformer: inside,
            },
            None => Self {
                root: folder.clone(),
                transformer: "",
            },
        })
    }
}

/// The folder that holds `path`, where that is called `name`.
fn parent(path: &Path, name: &str) -> Option<PathBuf> {
    let whole = std::path::absolute(path).ok()?;
    let ours = whole.file_name().is_some_and(|own| own == name);
    ours.then(|| whole.parent().map(Path::to_owned)).flatten()
}

/// A text encoder with its tokenizer.
pub(super) struct TextFiles {
    pub network: Opened<Qwen2Config>,
    pub tokenizer: PromptTokenizer,
}

/// Everything that is known of a model before its weights are read.
pub(super) struct Files {
    pub label: String,
    pub config: transformer::TransformerConfig,
    pub scales: Scales,
    pub transformer: Opened<dyn ComponentConfig>,
    pub tokenizer_config: tokenizer::TokenizerConfig,
    pub tokenizer: Opened<dyn ComponentConfig>,
    /// Absent where no folder has one: codes of a file can be decoded all the same.
    pub text: Option<TextFiles>,
    /// The folder's text before every prompt.
    pub system: Option<String>,
    /// Where none is asked for.
    pub guidance: f32,
    pub known_prompts: Option<KnownPrompts>,
    /// Keys of the configurations that nothing reads, each with its file.
    pub unread_keys: Vec<String>,
}

impl Files {
    pub fn open(
        folder: &ModelFolder,
        settings: &OpenSettings,
        options: &LoadOptions,
    ) -> Result<Self> {
        let label = folder.label();
        let Some(Place { root, transformer }) = Place::find(folder) else {
            let message = "there is no llm/config.json of a HART transformer: expected a folder with llm/ and \
                           tokenizer/";
            return Err(Error::folder(label, message));
        };
        let place = ComponentFolder::new(&root, transformer);
        let config = place.config(transformer::TransformerConfig::from_json)?;
        let wanted = Wanted {
            trained: options.trained,
            ..options.wanted()
        };
        let network = place.open_as(&hart::COMPONENT, &wanted)?;
        let beside = tokenizer_place(&root, &place, settings)?;
        let tokenizer_config = beside.config(tokenizer::TokenizerConfig::from_json)?;
        let wanted = options.wanted();
        let tokenizer = beside.open_as(&tokenizer::COMPONENT, &wanted)?;
        let text_place = text_place(&root, settings)?;
        let mut places = vec![place, beside];
        let text = match text_place {
            Some(place) => {
                let read =
                    |bytes: &[u8], label: &str| Qwen2Config::from_json(bytes, label).map(Box::new);
                let network = place.open(read, &wanted)?;
                let tokenizer = PromptTokenizer::open(&place, network.config.0.vocab_size)?;
                places.push(place);
                Some(TextFiles { network, tokenizer })
            }
            None => None,
        };
        let system = match root.exists(SYSTEM_PROMPT_FILE) {
            true => Some(root.read_text(SYSTEM_PROMPT_FILE)?),
            false => None,
        };
        let files = Self {
            label,
            scales: config.scales()?,
            config,
            transformer: network,
            tokenizer_config,
            tokenizer,
            text,
            system,
            guidance: default_guidance(&root, GUIDANCE)?,
            known_prompts: KnownPrompts::read(&root)?,
            unread_keys: ComponentFolder::unread_keys_of(&places)?,
        };
        files.check_together()?;
        Ok(files)
    }

    /// Codewords as the transformer's file has them must be those of the tokenizer, and its rows of text
    /// those of the text encoder.
    fn check_together(&self) -> Result<()> {
        let disagree = |message: String| Err(Error::folder(&self.label, message));
        if let Some(source) = self.transformer.stored() {
            let side = |name: &str, at: usize| source.info(name)?.1.get(at).copied();
            let own = &self.tokenizer_config;
            for (key, has, wants) in [
                ("vocab_size", own.vocab_size, side("head.weight", 0)),
                ("z_channels", own.z_channels, side("word_embed.weight", 1)),
            ] {
                if let Some(wants) = wants
                    && wants != has
                {
                    return disagree(format!(
                        "the tokenizer's `{key}` is {has}, but the transformer was made for {wants}; expected \
                         the tokenizer that it was trained with"
                    ));
                }
            }
        }
        if let Some(text) = &self.text {
            let (wants, has) = (self.config.context_dim, text.network.config.0.hidden_size);
            if wants != has {
                return disagree(format!(
                    "the transformer's `context_dim` is {wants}, the text encoder's `hidden_size` {has}; they \
                     do not belong together"
                ));
            }
        }
        Ok(())
    }

    /// Pixels of a picture's side.
    pub fn pixels(&self) -> usize {
        self.scales.side() * self.tokenizer_config.ratio()
    }

    /// The tokenizer with some of its parts.
    pub fn load_tokenizer(
        &self,
        options: &LoadOptions,
        parts: tokenizer::Parts,
    ) -> Result<tokenizer::Tokenizer> {
        let settings = options.tokenizer_settings();
        let weights = self.tokenizer.parameters(&settings)?.build()?;
        Ok(tokenizer::Tokenizer::load(
            &self.tokenizer_config,
            &weights,
            parts,
        )?)
    }

    /// Number and width of codewords.
    pub fn codewords(&self) -> transformer::Codewords {
        transformer::Codewords {
            count: self.tokenizer_config.vocab_size,
            width: self.tokenizer_config.z_channels,
        }
    }
}

/// The tokenizer's folder: the one that is given, the one beside the transformer, or the one that the
/// transformer's configuration names. That may be a place of training that is gone.
fn tokenizer_place(
    root: &ModelFolder,
    transformer: &ComponentFolder,
    settings: &OpenSettings,
) -> Result<ComponentFolder> {
    let names = tokenizer::COMPONENT.folders;
    if let Some(given) = settings.folder(&keys::VAE)? {
        return ComponentFolder::find(&given, names).map_err(|error| error.of(keys::VAE.name()));
    }
    let sibling = ComponentFolder::new(root, names[0]);
    if sibling.has_config() {
        return Ok(sibling);
    }
    let config = transformer.config_json()?;
    let named = config.get("vae_path").and_then(|path| path.as_str());
    if let Some(path) = named.map(Path::new)
        && path.join(CONFIG).is_file()
    {
        let folder = ModelFolder::Disk(path.to_owned());
        return Ok(ComponentFolder::new(&folder, ""));
    }
    let named = named.map_or_else(String::new, |path| {
        format!(", and `vae_path` {} is no folder of one", shown(path))
    });
    Err(Error::folder(
        root.label(),
        format!(
            "there is no {}{named}; expected the tokenizer's folder, or `{}` to name it",
            sibling.inside(CONFIG),
            keys::VAE.name()
        ),
    ))
}

/// The text encoder's folder, in which its tokenizer lies too.
fn text_place(root: &ModelFolder, settings: &OpenSettings) -> Result<Option<ComponentFolder>> {
    const NAME: &str = "text_encoder";
    let place = match settings.folder(&keys::TEXT_ENCODER)? {
        Some(given) => ComponentFolder::find(&given, &[NAME])
            .map_err(|error| error.of(keys::TEXT_ENCODER.name()))?,
        None => ComponentFolder::new(root, NAME),
    };
    Ok(place.has_config().then_some(place))
}
