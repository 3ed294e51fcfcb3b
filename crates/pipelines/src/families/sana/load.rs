//! Finds a pipeline's components, reads their configurations and opens their weights.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::component::LoadSettings;
use brisk_models::dcae::{self, AutoencoderConfig};
use brisk_models::gemma2::Gemma2Config;
use brisk_models::sana::native::NativeHeads;
use brisk_models::sana::{ControlWiring, SanaConfig};
use brisk_models::sana_controlnet::SanaControlNetConfig;
use brisk_nn::{Activations, Location, Lora, LoraFile, Quantization, WeightsBuilder};
use brisk_store::read::without_last_line_end;
use brisk_store::{ModelFolder, parse_json};
use brisk_text::Tokenizer;

use super::index::Index;
use super::plan::ModelKind;
use super::scheduler::SchedulerFile;
use super::transformer_files::{check_transformer, open_transformer};
use crate::default_guidance::default_guidance;
use crate::diffusion::preview::{self, PreviewDecoder};
use crate::diffusion::schedulers::{SchedulerConfig, SchedulerKind};
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::known_prompts::KnownPrompts;
use crate::low_bit_settings;
use crate::request::RandomWeights;
use crate::residency::Residency;

/// How to load a pipeline.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Variant of the weight files, such as `fp16` or `bf16`; plain files are used where it is absent.
    pub variant: Option<String>,
    /// LoRAs for the transformer, which add up.
    pub loras: Vec<LoraFile>,
    /// ControlNet folder in the diffusers layout.
    pub controlnet: Option<ModelFolder>,
    /// How the ControlNet is wired; `None` for diffusers' way with folders, the authors' with `.pth` files.
    pub control_wiring: Option<ControlWiring>,
    /// Compute as the authors' repository does where it differs from diffusers: time grid, epsilons,
    /// mask of the negative prompt, ControlNet wiring.
    pub native: bool,
    /// Transformer in one file, in either naming, or in its own folder, in place of the folder's.
    pub transformer_file: Option<PathBuf>,
    /// Head counts of a `.pth` transformer whose width is not a published one.
    pub heads: Option<NativeHeads>,
    /// Autoencoder in place of the folder's: a component's folder, or a pipeline's.
    pub vae: Option<ModelFolder>,
    /// What shows latents on the way, in place of the folder's.
    pub preview_decoder: Option<PathBuf>,
    /// Text encoder and tokenizer in place of the folder's: a component's folder, or a pipeline's.
    pub text_encoder: Option<ModelFolder>,
    /// What stays in memory.
    pub residency: Residency,
    /// Make up weights at the shapes of the configurations instead of opening weight files.
    pub random: Option<RandomWeights>,
    /// Compute the autoencoder's convolutions tap by tap, slower, to the last bits of the reference.
    pub exact: bool,
    /// How inputs of 4-bit layers are rounded; `None` for 8 bits, or for a model without such layers.
    pub activations: Option<Activations>,
    /// How the text encoder's linear layers are quantized while they are loaded: rounded to nearest
    /// in groups of 32 inputs, computed with activations of 8 bits.
    pub text_quantization: Quantization,
    /// Where the networks compute.
    pub location: Location,
    /// As `text_quantization`, for the transformer's linear layers: weights and activations of 8
    /// bits, or weights of 4, without calibration.
    pub transformer_quantization: Quantization,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            variant: None,
            loras: Vec::new(),
            controlnet: None,
            control_wiring: None,
            native: false,
            transformer_file: None,
            heads: None,
            vae: None,
            preview_decoder: None,
            text_encoder: None,
            residency: Residency::Auto,
            random: None,
            exact: false,
            activations: None,
            text_quantization: Quantization::None,
            location: Location::HOST,
            transformer_quantization: Quantization::None,
        }
    }
}

impl LoadOptions {
    /// Which weights are wanted of a component.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            variant: self.variant.clone(),
            random: self.random,
            ..Wanted::default()
        }
    }

    /// How the transformer is loaded.
    pub(super) fn transformer_settings(&self) -> LoadSettings {
        LoadSettings {
            activations: self.activations,
            quantization: self.transformer_quantization,
            location: self.location.clone(),
            ..LoadSettings::default()
        }
    }

    /// How the text encoder is loaded.
    pub(super) fn text_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.text_quantization,
            location: self.location.clone(),
            ..LoadSettings::default()
        }
    }

    /// How the autoencoder is loaded.
    pub(super) fn autoencoder_settings(&self) -> LoadSettings {
        LoadSettings {
            exact: self.exact,
            location: self.location.clone(),
            ..LoadSettings::default()
        }
    }
}

/// Everything that is known of a pipeline before its weights are read.
pub(super) struct Files {
    pub(super) label: String,
    pub(super) kind: ModelKind,
    pub(super) scheduler: SchedulerConfig,
    /// Why a request must name its sampler: what is at fault, and how.
    pub(super) scheduler_problem: Option<(String, String)>,
    pub(super) transformer: Opened<SanaConfig>,
    pub(super) loras: Vec<(Arc<Lora>, f32)>,
    pub(super) control: Option<ControlFiles>,
    pub(super) text: Opened<Gemma2Config>,
    pub(super) tokenizer: Tokenizer,
    pub(super) vae: Opened<AutoencoderConfig>,
    /// Shows latents on the way.
    pub(super) preview: Option<PreviewDecoder>,
    /// Content of the folder's instruction file, where it has one.
    pub(super) instruction: Option<String>,
    /// Guidance where a request gives none.
    pub(super) guidance: f32,
    /// What the folder says that the model knows.
    pub(super) known_prompts: Option<KnownPrompts>,
    /// Keys of the folder's configurations that nothing reads, each with its file.
    pub(super) unread_keys: Vec<String>,
    /// What a user should know of the files besides.
    pub(super) notes: Vec<String>,
}

pub(super) struct ControlFiles {
    pub(super) network: Opened<SanaControlNetConfig>,
    pub(super) wiring: ControlWiring,
}

const TOKENIZER: &str = "tokenizer.json";
/// What transformers reads beside it.
const TOKENIZER_SETTINGS: &str = "tokenizer_config.json";

/// File in a model's folder with the text put before every prompt.
pub(super) const INSTRUCTION_FILE: &str = "complex_human_instruction.txt";

impl Files {
    pub(super) fn open(folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        let index = Index::read(folder, options)?;
        let transformer = open_transformer(folder, options)?;
        let kind = match &index {
            Some(index) => index.kind,
            None if transformer.network.config.guidance_embeds => ModelKind::Sprint,
            None => ModelKind::Sana,
        };
        check_transformer(folder, &transformer.network.config, kind)?;
        low_bit_settings::check(
            options.activations,
            options.transformer_quantization,
            transformer.network.is_low_bit(),
        )?;
        let scheduler = SchedulerFile::open(folder, kind, &transformer.network.config)?;
        let control = match transformer.control {
            Some(control) => Some(control),
            None => open_control(folder, options, index.as_ref())?,
        };
        let (text, tokenizer, tokenizer_note) = open_text(folder, options)?;
        if options.text_quantization != Quantization::None && text.is_low_bit() {
            return Err(Error::request(
                "quantize-text-encoder",
                "the text encoder's file has 4-bit weights already; load the full one",
            ));
        }
        let vae = located(folder, options.vae.as_ref(), "vae")?;
        let read = |bytes: &[u8], label: &str| dcae::open(bytes, label).map(Box::new);
        let vae = vae.open(read, &options.wanted().without_low_bit())?;
        let mut notes = match &index {
            Some(index) => index.notes(scheduler.class.as_deref()),
            None => Vec::new(),
        };
        notes.extend(tokenizer_note);
        let loras = open_loras(options)?;
        notes.extend(
            loras
                .iter()
                .flat_map(|(lora, _)| lora.notes().iter().cloned()),
        );
        let files = Self {
            label: folder.label(),
            kind,
            scheduler: scheduler.config,
            scheduler_problem: scheduler.problem,
            transformer: transformer.network,
            loras,
            control: control.map(|control| control.wired(options)),
            text,
            tokenizer,
            preview: open_preview(folder, options, vae.config.latent_channels)?,
            vae,
            instruction: read_instruction(folder)?,
            guidance: default_guidance(folder, GUIDANCE)?,
            known_prompts: KnownPrompts::read(folder)?,
            unread_keys: unread_keys(folder, options)?,
            notes,
        };
        files.check_together()?;
        Ok(files)
    }

    /// The sampler where a request names none; `native` takes the authors' one.
    pub(super) fn scheduler_kind(&self, native: bool) -> SchedulerKind {
        if native && self.kind == ModelKind::Sana {
            return SchedulerKind::DpmSolverNative;
        }
        self.scheduler.kind()
    }

    /// Text put before every prompt where a request has none: the folder's, else brisk's own.
    pub(super) fn instruction(&self) -> &str {
        self.instruction
            .as_deref()
            .unwrap_or(super::prompt::DEFAULT_INSTRUCTION)
    }

    /// Whether the folder brings an instruction.
    pub(super) fn has_instruction(&self) -> bool {
        self.instruction.is_some()
    }

    /// Components must agree in their widths.
    fn check_together(&self) -> Result<()> {
        let (transformer, text, vae) = (
            &self.transformer.config,
            &self.text.config,
            &self.vae.config,
        );
        let disagree = |message: String| Err(Error::folder(&self.label, message));
        if transformer.caption_channels != text.hidden_size {
            return disagree(format!(
                "the transformer reads captions of {} channels, the text encoder gives {}",
                transformer.caption_channels, text.hidden_size
            ));
        }
        if transformer.in_channels != vae.latent_channels {
            return disagree(format!(
                "the transformer has {} latent channels, the autoencoder {}",
                transformer.in_channels, vae.latent_channels
            ));
        }
        if vae.in_channels != 3 {
            return disagree(format!(
                "the autoencoder has {} colour channels, not 3",
                vae.in_channels
            ));
        }
        if let Some(control) = &self.control {
            let copied = &control.network.config.transformer;
            if copied.width() != transformer.width()
                || copied.in_channels != transformer.in_channels
                || copied.patch_size != transformer.patch_size
                || copied.caption_channels != transformer.caption_channels
                || copied.num_layers >= transformer.num_layers
            {
                return disagree(format!(
                    "the ControlNet (width {}, {} blocks) was not made for this transformer (width {}, {} blocks)",
                    copied.width(),
                    copied.num_layers,
                    transformer.width(),
                    transformer.num_layers
                ));
            }
            if copied.guidance_embeds != transformer.guidance_embeds {
                return disagree(format!(
                    "the ControlNet (guidance_embeds {}) was not made for this transformer (guidance_embeds {}); SANA-Sprint \
                     needs one that was distilled for it, SANA one that was not",
                    copied.guidance_embeds, transformer.guidance_embeds
                ));
            }
        }
        Ok(())
    }
}

impl ControlFiles {
    /// Its parameters.
    pub(super) fn weights(&self) -> Result<WeightsBuilder> {
        self.network.parameters(&LoadSettings::default())
    }

    fn wired(mut self, options: &LoadOptions) -> Self {
        if options.native {
            self.wiring = ControlWiring::Native;
        }
        if let Some(wiring) = options.control_wiring {
            self.wiring = wiring;
        }
        self
    }
}

fn open_control(
    folder: &ModelFolder,
    options: &LoadOptions,
    index: Option<&Index>,
) -> Result<Option<ControlFiles>> {
    let bundled = index.is_some_and(Index::brings_control);
    let place = match &options.controlnet {
        Some(folder) if folder.exists("config.json") => ComponentFolder::new(folder, ""),
        Some(folder) => ComponentFolder::new(folder, "controlnet"),
        None if bundled => ComponentFolder::new(folder, "controlnet"),
        None => return Ok(None),
    };
    let read =
        |bytes: &[u8], label: &str| SanaControlNetConfig::from_json(bytes, label).map(Box::new);
    let wanted = Wanted {
        random: None,
        ..options.wanted()
    };
    Ok(Some(ControlFiles {
        network: place.open(read, &wanted)?,
        wiring: ControlWiring::Diffusers,
    }))
}

fn open_loras(options: &LoadOptions) -> Result<Vec<(Arc<Lora>, f32)>> {
    let open = |file: &LoraFile| {
        if !file.scale.is_finite() {
            return Err(Error::request(
                "lora-scale",
                format!("{} is not a finite number", file.scale),
            ));
        }
        Ok((Arc::new(Lora::open(&file.path)?), file.scale))
    };
    options.loras.iter().map(open).collect()
}

fn open_text(
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<(Opened<Gemma2Config>, Tokenizer, Option<String>)> {
    let place = located(folder, options.text_encoder.as_ref(), "text_encoder")?;
    let read = |bytes: &[u8], label: &str| Gemma2Config::from_json(bytes, label).map(Box::new);
    let encoder = place.open(read, &options.wanted().without_low_bit())?;
    // A model's folder has the tokenizer beside the encoder, a component's own has it inside.
    let beside = options.text_encoder.as_ref().unwrap_or(folder);
    let tokenizer = ComponentFolder::new(beside, "tokenizer");
    let place = match place.exists(TOKENIZER) && !tokenizer.exists(TOKENIZER) {
        true => place,
        false => tokenizer,
    };
    let bytes = place.read(TOKENIZER)?;
    let tokenizer = Tokenizer::from_bytes(&bytes, &place.label(TOKENIZER))?;
    let note = tokenizer_note(&place, &tokenizer)?;
    Ok((encoder, tokenizer, note))
}

/// Says where a tokenizer's settings and what its own file does differ: transformers obeys the settings.
fn tokenizer_note(place: &ComponentFolder, tokenizer: &Tokenizer) -> Result<Option<String>> {
    if !place.exists(TOKENIZER_SETTINGS) {
        return Ok(None);
    }
    let label = place.label(TOKENIZER_SETTINGS);
    let settings = parse_json(&place.read(TOKENIZER_SETTINGS)?, &label)?;
    let (plain, added) = (tokenizer.encode_plain("a")?, tokenizer.encode("a")?);
    let before = added
        .windows(plain.len().max(1))
        .position(|ids| ids == plain);
    let Some(before) = before else {
        return Ok(None);
    };
    let after = added.len() - plain.len() - before;
    let differs = [("add_bos_token", before), ("add_eos_token", after)]
        .into_iter()
        .filter_map(|(key, count)| {
            let asked = settings.get(key)?.as_bool()?;
            (asked != (count > 0)).then(|| format!("{key} is {asked}"))
        });
    let differs: Vec<String> = differs.collect();
    Ok((!differs.is_empty()).then(|| {
        format!(
            "{label}: {}, but {TOKENIZER} does otherwise, which is followed; the reference may not",
            differs.join(" and ")
        )
    }))
}

/// A component of the model's folder, or of the one that is given in its place.
fn located(
    folder: &ModelFolder,
    given: Option<&ModelFolder>,
    component: &'static str,
) -> Result<ComponentFolder> {
    match given {
        Some(given) => ComponentFolder::find(given, &[component]),
        None => Ok(ComponentFolder::new(folder, component)),
    }
}

/// The guidance that published models are drawn with.
const GUIDANCE: f32 = 4.5;

/// The preview decoder that is named, or the one in the folder, which is for the folder's own autoencoder.
fn open_preview(
    folder: &ModelFolder,
    options: &LoadOptions,
    channels: usize,
) -> Result<Option<PreviewDecoder>> {
    let (source, label) = match &options.preview_decoder {
        Some(path) => (brisk_store::open_weights(path)?, path.display().to_string()),
        None if options.vae.is_none() && folder.exists(preview::FILE) => (
            folder.open(preview::FILE)?,
            format!("{}/{}", folder.label(), preview::FILE),
        ),
        None => return Ok(None),
    };
    let decoder = PreviewDecoder::read(&*source, &label)?;
    if decoder.channels() != channels {
        return Err(Error::folder(
            label,
            format!(
                "takes latents of {} channels, the autoencoder has {channels}; they do not belong together",
                decoder.channels()
            ),
        ));
    }
    Ok(Some(decoder))
}

/// Keys of the configurations of this folder's networks that their readers do not know.
fn unread_keys(folder: &ModelFolder, options: &LoadOptions) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (part, replaced) in [
        ("transformer", options.transformer_file.is_some()),
        ("text_encoder", options.text_encoder.is_some()),
        ("vae", options.vae.is_some()),
    ] {
        if !replaced {
            found.extend(ComponentFolder::new(folder, part).unread_keys()?);
        }
    }
    Ok(found)
}

fn read_instruction(folder: &ModelFolder) -> Result<Option<String>> {
    if !folder.exists(INSTRUCTION_FILE) {
        return Ok(None);
    }
    let text = folder.read_text(INSTRUCTION_FILE)?;
    Ok(Some(without_last_line_end(&text).to_owned()))
}
