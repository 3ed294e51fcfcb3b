//! Finds a pipeline's components, reads their configurations and opens their weights.

use std::path::PathBuf;
use std::sync::Arc;

use brisk_models::dcae::{self, AutoencoderConfig};
use brisk_models::gemma2::Gemma2Config;
use brisk_models::sana::native::NativeHeads;
use brisk_models::sana::{ControlWiring, SanaConfig};
use brisk_models::sana_controlnet::SanaControlNetConfig;
use brisk_nn::{Activations, Lora, LoraFile, Quantization};
use brisk_store::read::without_last_line_end;
use brisk_store::{ModelFolder, TensorSource};
use brisk_text::Tokenizer;
use serde_json::Value;

use super::component::ComponentWeights;
use super::plan::ModelKind;
use super::scheduler::SchedulerFile;
use super::transformer_files::{check_transformer, open_transformer};
use crate::diffusion::schedulers::{SchedulerConfig, SchedulerKind};
use crate::error::{Error, Result};
use crate::request::RandomWeights;

/// Which components stay in memory after the stage that needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residency {
    /// All of them if they fill at most half of the free memory, else one at a time.
    #[default]
    Auto,
    /// All of them, for many requests in a row.
    KeepAll,
    /// Each is dropped before the next is loaded.
    OneAtATime,
}

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
            text_encoder: None,
            residency: Residency::Auto,
            random: None,
            exact: false,
            activations: None,
            text_quantization: Quantization::None,
            transformer_quantization: Quantization::None,
        }
    }
}

/// Everything that is known of a pipeline before its weights are read.
pub(super) struct Files {
    pub(super) label: String,
    pub(super) kind: ModelKind,
    pub(super) scheduler: SchedulerConfig,
    /// Why a request must name its sampler.
    pub(super) scheduler_problem: Option<String>,
    pub(super) transformer_config: SanaConfig,
    pub(super) transformer: ComponentWeights,
    pub(super) activations: Activations,
    pub(super) loras: Vec<(Arc<Lora>, f32)>,
    pub(super) control: Option<ControlFiles>,
    pub(super) text_config: Gemma2Config,
    pub(super) text: ComponentWeights,
    pub(super) tokenizer: Tokenizer,
    pub(super) vae_config: AutoencoderConfig,
    pub(super) vae: ComponentWeights,
    /// Content of the folder's instruction file, where it has one.
    pub(super) instruction: Option<String>,
    /// Guidance where a request gives none.
    pub(super) guidance: f32,
}

pub(super) struct ControlFiles {
    pub(super) config: SanaControlNetConfig,
    pub(super) weights: Arc<dyn TensorSource>,
    pub(super) wiring: ControlWiring,
}

/// File in a model's folder with the text put before every prompt.
pub(super) const INSTRUCTION_FILE: &str = "complex_human_instruction.txt";

/// File that says what a pipeline's folder holds.
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
        "SanaControlNetPipeline",
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

impl Files {
    pub(super) fn open(folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        let index = read_index(folder, options)?;
        let transformer = open_transformer(folder, options)?;
        let kind = match &index {
            Some(index) => index.kind,
            None if transformer.config.guidance_embeds => ModelKind::Sprint,
            None => ModelKind::Sana,
        };
        check_transformer(folder, &transformer.config, kind)?;
        let quantized = transformer.weights.is_quantized();
        if options.activations.is_some() && !quantized {
            return Err(Error::request(
                "activations",
                "has no effect on a transformer without 4-bit layers",
            ));
        }
        if options.transformer_quantization != Quantization::None && quantized {
            return Err(Error::request(
                "quantize-transformer",
                "the transformer's file has 4-bit weights already; load the full one",
            ));
        }
        let scheduler = SchedulerFile::open(folder, kind, &transformer.config)?;
        let control = match transformer.control {
            Some(control) => Some(control),
            None => open_control(folder, options, index.as_ref())?,
        };
        let (text_config, text, tokenizer) = open_text(folder, options)?;
        if options.text_quantization != Quantization::None && text.is_quantized() {
            return Err(Error::request(
                "quantize-text-encoder",
                "the text encoder's file has 4-bit weights already; load the full one",
            ));
        }
        let (vae_config, vae) = open_vae(folder, options)?;
        let files = Self {
            label: folder.label(),
            kind,
            scheduler: scheduler.config,
            scheduler_problem: scheduler.problem,
            transformer_config: transformer.config,
            transformer: transformer.weights,
            activations: options.activations.unwrap_or_default(),
            loras: open_loras(options)?,
            control: control.map(|control| control.wired(options)),
            text_config,
            text,
            tokenizer,
            vae_config,
            vae,
            instruction: read_instruction(folder)?,
            guidance: read_guidance(folder)?,
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
        let transformer = &self.transformer_config;
        let disagree = |message: String| Err(Error::folder(&self.label, message));
        if transformer.caption_channels != self.text_config.hidden_size {
            return disagree(format!(
                "the transformer reads captions of {} channels, the text encoder gives {}",
                transformer.caption_channels, self.text_config.hidden_size
            ));
        }
        if transformer.in_channels != self.vae_config.latent_channels {
            return disagree(format!(
                "the transformer has {} latent channels, the autoencoder {}",
                transformer.in_channels, self.vae_config.latent_channels
            ));
        }
        if self.vae_config.in_channels != 3 {
            return disagree(format!(
                "the autoencoder has {} colour channels, not 3",
                self.vae_config.in_channels
            ));
        }
        if let Some(control) = &self.control {
            let copied = &control.config.transformer;
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
        }
        Ok(())
    }
}

impl ControlFiles {
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

/// What `model_index.json` says.
struct Index {
    kind: ModelKind,
    class: String,
}

fn read_index(folder: &ModelFolder, options: &LoadOptions) -> Result<Option<Index>> {
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
    let class = index
        .get("_class_name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some((_, kind, _)) = CLASSES.iter().find(|(name, ..)| *name == class) else {
        let family = class.strip_suffix("Pipeline").unwrap_or(&class);
        let what = if class.is_empty() {
            "model_index.json has no _class_name".to_owned()
        } else {
            format!("this is {family} ({class})")
        };
        return Err(Error::folder(
            folder.label(),
            format!("{what}; brisk image loads SANA, SANA-1.5 and SANA-Sprint"),
        ));
    };
    let replaced = |component: &str| match component {
        "vae" => options.vae.is_some(),
        "text_encoder" => options.text_encoder.is_some(),
        "transformer" => options.transformer_file.is_some(),
        _ => false,
    };
    for (component, known) in [
        ("transformer", &["SanaTransformer2DModel"][..]),
        ("vae", &["AutoencoderDC"]),
        ("text_encoder", &["Gemma2Model", "Gemma2ForCausalLM"]),
    ] {
        let found = index
            .get(component)
            .and_then(|entry| entry.get(1))
            .and_then(Value::as_str);
        if let Some(found) = found
            && !known.contains(&found)
            && !replaced(component)
        {
            return Err(Error::folder(
                folder.label(),
                format!(
                    "model_index.json: {component} is {found}; expected {}",
                    known.join(" or ")
                ),
            ));
        }
    }
    Ok(Some(Index { kind: *kind, class }))
}

fn open_control(
    folder: &ModelFolder,
    options: &LoadOptions,
    index: Option<&Index>,
) -> Result<Option<ControlFiles>> {
    let bundled = index.is_some_and(|index| index.class == "SanaControlNetPipeline");
    let (folder, sub) = match &options.controlnet {
        Some(folder) if folder.exists("config.json") => (folder, ""),
        Some(folder) => (folder, "controlnet"),
        None if bundled => (folder, "controlnet"),
        None => return Ok(None),
    };
    let name = join(sub, "config.json");
    let bytes = component_file(folder, sub, "config.json")?;
    let config = SanaControlNetConfig::from_json(&bytes, &format!("{}/{name}", folder.label()))?;
    let weights = folder.open_component(sub, options.variant.as_deref())?;
    Ok(Some(ControlFiles {
        config,
        weights,
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
) -> Result<(Gemma2Config, ComponentWeights, Tokenizer)> {
    let (folder, own) = located(folder, options.text_encoder.as_ref(), "text_encoder")?;
    let label = format!("{}/{}", folder.label(), join(own, "config.json"));
    let config = Gemma2Config::from_json(&component_file(folder, own, "config.json")?, &label)?;
    let tokenizer = [
        join("tokenizer", "tokenizer.json"),
        join(own, "tokenizer.json"),
    ]
    .into_iter()
    .find(|name| folder.exists(name))
    .ok_or_else(|| missing(folder, "tokenizer/tokenizer.json"))?;
    let label = format!("{}/{tokenizer}", folder.label());
    let tokenizer = Tokenizer::from_bytes(&folder.read(&tokenizer)?, &label)?;
    let weights = component_weights(folder, own, options, config.parameters())?;
    Ok((config, weights, tokenizer))
}

fn open_vae(
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<(AutoencoderConfig, ComponentWeights)> {
    let (folder, sub) = located(folder, options.vae.as_ref(), "vae")?;
    let name = join(sub, "config.json");
    let label = format!("{}/{name}", folder.label());
    let bytes = component_file(folder, sub, "config.json")?;
    let value = folder.read_json(&name)?;
    let config = match value.get("model_name").and_then(Value::as_str) {
        Some(named) => dcae::native::named_config(named, None)?,
        None => AutoencoderConfig::from_json(&bytes, &label)?,
    };
    if !(config.scaling_factor.is_finite() && config.scaling_factor > 0.0) {
        return Err(Error::config(
            label,
            format!("scaling_factor is {}", config.scaling_factor),
        ));
    }
    let parameters = config.parameters();
    let count = parameters.encoder + parameters.decoder;
    let mut weights = component_weights(folder, sub, options, count)?;
    if let ComponentWeights::Stored(source) = &weights
        && dcae::native::is_native(source.as_ref())
    {
        let mapped = dcae::native::map(source.clone())?;
        weights = ComponentWeights::Stored(Arc::new(mapped));
    }
    Ok((config, weights))
}

/// A component's stored weights, or `count` made up ones.
pub(super) fn component_weights(
    folder: &ModelFolder,
    sub: &str,
    options: &LoadOptions,
    count: u64,
) -> Result<ComponentWeights> {
    if let Some(random) = options.random {
        return Ok(ComponentWeights::Random(random, count));
    }
    let source = folder.open_component(sub, options.variant.as_deref())?;
    Ok(ComponentWeights::Stored(source))
}

/// The folder and subfolder of a component: `given` may be the component's folder or a pipeline's.
fn located<'a>(
    folder: &'a ModelFolder,
    given: Option<&'a ModelFolder>,
    component: &'static str,
) -> Result<(&'a ModelFolder, &'static str)> {
    let in_pipeline = join(component, "config.json");
    match given {
        Some(given) if given.exists(&in_pipeline) => Ok((given, component)),
        Some(given) if given.exists("config.json") => Ok((given, "")),
        Some(given) => Err(missing(given, &format!("config.json or {in_pipeline}"))),
        None => Ok((folder, component)),
    }
}

pub(super) fn component_file(folder: &ModelFolder, sub: &str, name: &str) -> Result<Vec<u8>> {
    let name = join(sub, name);
    if !folder.exists(&name) {
        return Err(missing(folder, &name));
    }
    Ok(folder.read(&name)?.into_owned())
}

fn missing(folder: &ModelFolder, name: &str) -> Error {
    Error::folder(
        folder.label(),
        format!("there is no {name}; the folder is incomplete"),
    )
}

fn join(sub: &str, name: &str) -> String {
    if sub.is_empty() {
        name.to_owned()
    } else {
        format!("{sub}/{name}")
    }
}

/// The guidance that published models are drawn with.
const GUIDANCE: f32 = 4.5;

/// File in a model's folder with its own default, `guidance_scale`.
const GENERATION_FILE: &str = "generation_config.json";

fn read_guidance(folder: &ModelFolder) -> Result<f32> {
    if !folder.exists(GENERATION_FILE) {
        return Ok(GUIDANCE);
    }
    let label = format!("{}/{GENERATION_FILE}", folder.label());
    let config: serde_json::Value = serde_json::from_slice(&folder.read(GENERATION_FILE)?)
        .map_err(|error| Error::config(&label, error.to_string()))?;
    match config.get("guidance_scale") {
        None => Ok(GUIDANCE),
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

fn read_instruction(folder: &ModelFolder) -> Result<Option<String>> {
    if !folder.exists(INSTRUCTION_FILE) {
        return Ok(None);
    }
    let text = folder.read_text(INSTRUCTION_FILE)?;
    Ok(Some(without_last_line_end(&text).to_owned()))
}
