//! The options of `brisk image`, and how each becomes a part of the request.

use std::path::{Path, PathBuf};

use brisk_media::read_picture;
use brisk_models::sana::ControlWiring;
use brisk_models::sana::native::NativeHeads;
use brisk_pipelines::request::OPTIONS;
use brisk_pipelines::sana::LoadOptions;
use brisk_pipelines::schedulers::SchedulerKind;
use brisk_pipelines::{ControlImage, DecodeMode, InitImage, Instruction, Latents};
use brisk_quant::file::open_folder;
use brisk_store::read::without_last_line_end;
use brisk_store::{Limit, ModelFolder, open_weights, read_text};
use clap::Args;

use super::super::ThreadArguments;
use super::super::compare::models::ActivationBits;
use super::super::inspect::identify;
use crate::catalogue::{NOT_RECOMMENDED, PUBLISHED};
use crate::failure::{Failure, Result};
use crate::models::quantisation;
use crate::tensors::Inputs;
use crate::{models, output};

// Options without a comment take their help from `brisk_pipelines::request::OPTIONS`.

/// Draw pictures from a text; without --model, the model in the box draws
#[derive(Debug, Args)]
#[command(
    override_usage = "brisk image \"WHAT IT SHOWS\" [-o FILE.png] [--model MODEL] [OPTIONS]",
    next_help_heading = "Picture",
    after_help = "Rarely needed: --max-sequence-length N, --pag-adaptive X, --strength-on-grid, --preview-interval N,\n\
                  --control-wiring diffusers|native, --heads SELF,CROSS (.pth of unpublished widths), --dtype f32,\n\
                  --activations 8|4|full, --quantize-text-encoder, --quantize-transformer none|8bit|4bit"
)]
pub struct ImageArguments {
    /// What the picture shows, in quotes; each one makes a picture
    #[arg(value_name = "PROMPT")]
    pub words: Vec<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub negative_prompt: Option<String>,
    #[arg(long)]
    pub width: Option<usize>,
    #[arg(long)]
    pub height: Option<usize>,
    /// Both at once: one side of a square, or WxH
    #[arg(long, value_name = "N|WxH", conflicts_with_all = ["width", "height"])]
    pub size: Option<String>,
    #[arg(
        long,
        visible_alias = "num-images",
        default_value_t = 1,
        hide_default_value = true
    )]
    pub images: usize,
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub seed: u64,

    #[arg(long, help_heading = "Sampling")]
    pub steps: Option<usize>,
    #[arg(long, help_heading = "Sampling", allow_negative_numbers = true)]
    pub guidance: Option<f32>,
    #[arg(long, help_heading = "Sampling")]
    pub scheduler: Option<String>,
    #[arg(long, help_heading = "Sampling", allow_negative_numbers = true)]
    pub shift: Option<f64>,
    #[arg(
        long,
        help_heading = "Sampling",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub scm_timesteps: Vec<f32>,
    #[arg(long, help_heading = "Sampling", allow_negative_numbers = true)]
    pub pag_scale: Option<f32>,
    #[arg(long, help_heading = "Sampling", value_delimiter = ',')]
    pub pag_layers: Vec<usize>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub pag_adaptive: Option<f32>,
    #[arg(long, help_heading = "Sampling")]
    pub instruction: Option<String>,
    #[arg(long, help_heading = "Sampling")]
    pub no_binning: bool,
    #[arg(long, hide = true)]
    pub max_sequence_length: Option<usize>,

    #[arg(long, visible_alias = "image", help_heading = "From a picture")]
    pub init_image: Option<PathBuf>,
    #[arg(long, help_heading = "From a picture", allow_negative_numbers = true)]
    pub strength: Option<f64>,
    #[arg(long, hide = true)]
    pub strength_on_grid: bool,
    /// ControlNet: a folder or hub id
    #[arg(long, help_heading = "From a picture", value_name = "MODEL")]
    pub controlnet: Option<String>,
    #[arg(long, help_heading = "From a picture")]
    pub control_image: Option<PathBuf>,
    #[arg(long, help_heading = "From a picture", allow_negative_numbers = true)]
    pub control_scale: Option<f32>,
    #[arg(long, hide = true)]
    pub control_wiring: Option<String>,

    /// Folder, hub id (OWNER/NAME) or sana-emoji, the one in the box
    #[arg(short, long, help_heading = "Model", value_name = "MODEL")]
    pub model: Option<String>,
    /// Variant of the weight files: fp16 or bf16
    #[arg(long, help_heading = "Model", value_name = "NAME")]
    pub variant: Option<String>,
    /// LoRA for the transformer: a file or folder
    #[arg(long, help_heading = "Model", value_name = "FILE")]
    pub lora: Option<PathBuf>,
    /// Weight of the LoRA (default 1)
    #[arg(
        long,
        help_heading = "Model",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub lora_scale: Option<f32>,
    /// Transformer in one file, also the authors' .pth
    #[arg(long, help_heading = "Model", value_name = "FILE")]
    pub transformer: Option<PathBuf>,
    #[arg(long, hide = true, value_enum)]
    pub activations: Option<ActivationBits>,
    #[arg(long, hide = true, value_name = "KIND", default_value = "none")]
    pub quantize_text_encoder: String,
    #[arg(long, hide = true, value_name = "KIND", default_value = "none")]
    pub quantize_transformer: String,
    /// Autoencoder in place of the model's: folder or hub id
    #[arg(long, help_heading = "Model", value_name = "MODEL")]
    pub vae: Option<String>,
    /// Text encoder and tokenizer in place of the model's
    #[arg(long, help_heading = "Model", value_name = "MODEL")]
    pub text_encoder: Option<String>,
    /// Compute as the authors' code where diffusers differs
    #[arg(long, help_heading = "Model")]
    pub native: bool,
    /// Convolve tap by tap: slower, closer in the last bits
    #[arg(long, hide = true)]
    pub exact: bool,
    #[arg(long, hide = true, value_delimiter = ',', num_args = 1)]
    pub heads: Vec<usize>,

    /// PNG file to write (default brisk.png); several get -0, -1, ...
    #[arg(
        short,
        long,
        help_heading = "Output and machine",
        value_name = "FILE",
        default_value = "brisk.png",
        hide_default_value = true
    )]
    pub output: PathBuf,
    #[arg(long, help_heading = "Output and machine")]
    pub latents: Option<PathBuf>,
    /// Also write the final latents (safetensors)
    #[arg(long, help_heading = "Output and machine", value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
    /// Also write all pictures with their prompts as one PNG
    #[arg(long, value_name = "FILE", help_heading = "Output and machine")]
    pub sheet: Option<PathBuf>,
    #[arg(long, help_heading = "Output and machine")]
    pub decode: Option<String>,
    /// Show pictures on the way: a PNG file, or a folder for all
    #[arg(long, help_heading = "Output and machine", value_name = "PATH")]
    pub preview: Option<PathBuf>,
    #[arg(long, hide = true, requires = "preview")]
    pub preview_interval: Option<usize>,
    /// Where to compute: cpu
    #[arg(long, help_heading = "Output and machine", value_name = "NAME", value_parser = only_cpu)]
    pub device: Option<String>,
    #[arg(long, hide = true, value_parser = only_f32)]
    pub dtype: Option<String>,
    #[command(flatten, next_help_heading = "Output and machine")]
    pub threads: ThreadArguments,
    /// Print one JSON document instead of file names
    #[arg(long, help_heading = "Output and machine")]
    pub json: bool,
}

/// Says what a file is that is no transformer; its name alone would not tell.
fn check_transformer(file: &Path) -> Result {
    let source = match file.is_dir() {
        true => open_folder(file, None)?,
        false => open_weights(file)?,
    };
    if identify::is_sana_transformer(&*source)? {
        return Ok(());
    }
    let found = identify::identify(&*source, &identify::metadata(file))?;
    Err(Failure::failed(format!(
        "--transformer: {} holds {}, expected a SANA transformer",
        file.display(),
        found.name
    )))
}

fn only_cpu(name: &str) -> Result<String, String> {
    match name {
        "cpu" => Ok(name.to_owned()),
        _ => Err(format!(
            "this build computes on cpu only, it has no device \"{name}\""
        )),
    }
}

fn only_f32(name: &str) -> Result<String, String> {
    match name {
        "f32" => Ok(name.to_owned()),
        _ => Err(format!(
            "the CPU computes in f32 whatever the files store; it has no \"{name}\""
        )),
    }
}

/// Gives every request option the help and placeholder of its definition.
pub fn with_request_help(command: clap::Command) -> clap::Command {
    // `mut_arg` would move each option to the end of the help.
    command.mut_args(|argument| {
        let name = argument.get_id().as_str().replace('_', "-");
        match OPTIONS.iter().find(|info| info.name == name) {
            Some(info) if info.value.is_empty() => argument.help(capitalised(info.help)),
            Some(info) => argument.help(capitalised(info.help)).value_name(info.value),
            None => argument,
        }
    })
}

/// As the other options' help begins; a list of values keeps its spelling.
fn capitalised(text: &str) -> String {
    if text
        .split(' ')
        .next()
        .is_some_and(|word| word.ends_with(','))
    {
        return text.to_owned();
    }
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// What `--instruction` says: `none`, or a file with the text.
pub fn read_instruction(file: &str) -> Result<Instruction> {
    if file == "none" {
        return Ok(Instruction::None);
    }
    let text = read_text(Path::new(file), Limit::TEXT)
        .map_err(|error| Failure::from(error).at("--instruction"))?;
    // Editors end a file with a line end, which would become part of every prompt.
    Ok(Instruction::Text(without_last_line_end(&text).to_owned()))
}

impl ImageArguments {
    /// Width and height, where given.
    pub fn size(&self) -> Result<(Option<usize>, Option<usize>)> {
        let Some(size) = &self.size else {
            return Ok((self.width, self.height));
        };
        let (width, height) = size.split_once(['x', 'X', '×']).unwrap_or((size, size));
        match (width.parse(), height.parse()) {
            (Ok(width), Ok(height)) => Ok((Some(width), Some(height))),
            _ => Err(Failure::usage(format!(
                "--size: {size:?} is neither a number of pixels nor WxH, such as 1024x768"
            ))),
        }
    }

    /// The sampler, where given.
    pub fn scheduler(&self) -> Result<Option<SchedulerKind>> {
        Ok(self
            .scheduler
            .as_deref()
            .map(SchedulerKind::parse)
            .transpose()?)
    }

    /// How to decode.
    pub fn decode_mode(&self) -> Result<DecodeMode> {
        Ok(self
            .decode
            .as_deref()
            .map(DecodeMode::parse)
            .transpose()?
            .unwrap_or_default())
    }

    /// The picture to start from.
    pub fn init(&self) -> Result<Option<InitImage>> {
        let Some(path) = &self.init_image else {
            return match (self.strength, self.strength_on_grid) {
                (Some(_), _) => Err(Failure::usage(
                    "--strength: has no effect without --init-image",
                )),
                (None, true) => Err(Failure::usage(
                    "--strength-on-grid: has no effect without --init-image",
                )),
                (None, false) => Ok(None),
            };
        };
        Ok(Some(InitImage {
            picture: read_picture(path)?,
            strength: self.strength,
            on_grid: self.strength_on_grid,
        }))
    }

    /// The picture for the ControlNet.
    pub fn control_image(&self) -> Result<Option<ControlImage>> {
        let Some(path) = &self.control_image else {
            return match (&self.controlnet, self.control_scale) {
                (Some(_), _) => Err(Failure::usage(
                    "--controlnet: needs a picture, give one with --control-image",
                )),
                (None, Some(_)) => Err(Failure::usage(
                    "--control-scale: has no effect without --control-image",
                )),
                (None, None) => Ok(None),
            };
        };
        Ok(Some(ControlImage {
            picture: read_picture(path)?,
            scale: self.control_scale.unwrap_or(1.0),
        }))
    }

    /// The text before every prompt.
    pub fn instruction(&self) -> Result<Option<Instruction>> {
        self.instruction
            .as_deref()
            .map(read_instruction)
            .transpose()
    }

    /// The initial noise.
    pub fn given_latents(&self) -> Result<Option<Latents>> {
        let Some(path) = &self.latents else {
            return Ok(None);
        };
        let (shape, values) = Inputs::open(path)?.floats("latents", 4)?;
        Ok(Some(Latents {
            shape: [shape[0], shape[1], shape[2], shape[3]],
            values,
        }))
    }

    /// The model's folder and how to load it.
    pub fn model(&self) -> Result<(ModelFolder, LoadOptions)> {
        let variant = self.variant.as_deref();
        let component = |name: &Option<String>| -> Result<Option<ModelFolder>> {
            name.as_deref()
                .map(|name| models::open(Some(name), variant))
                .transpose()
        };
        self.warn_of_bad_model();
        if let Some(file) = &self.transformer {
            check_transformer(file)?;
        }
        if self.lora_scale.is_some() && self.lora.is_none() {
            return Err(Failure::usage("--lora-scale: has no effect without --lora"));
        }
        let options = LoadOptions {
            variant: self.variant.clone(),
            lora: self.lora.clone(),
            lora_scale: self.lora_scale.unwrap_or(1.0),
            controlnet: component(&self.controlnet)?,
            control_wiring: self.control_wiring()?,
            native: self.native,
            exact: self.exact,
            transformer_file: self.transformer.clone(),
            heads: self.heads()?,
            vae: component(&self.vae)?,
            text_encoder: component(&self.text_encoder)?,
            activations: self.activations.map(Into::into),
            text_quantisation: quantisation(
                "--quantize-text-encoder",
                &self.quantize_text_encoder,
            )?,
            transformer_quantisation: quantisation(
                "--quantize-transformer",
                &self.quantize_transformer,
            )?,
            ..LoadOptions::default()
        };
        let folder = match (&self.model, &self.transformer) {
            (None, Some(file)) => self.folder_beside(file)?,
            (name, _) => models::open(name.as_deref(), variant)?,
        };
        Ok((folder, options))
    }

    fn warn_of_bad_model(&self) {
        let listed = PUBLISHED
            .iter()
            .find(|model| Some(model.id) == self.model.as_deref());
        if let Some(model) = listed.filter(|model| model.note.starts_with(NOT_RECOMMENDED)) {
            output::warn(&format!("{}: {}", model.id, model.note));
        }
    }

    /// A transformer file alone lives in its own folder and needs the other components.
    fn folder_beside(&self, file: &Path) -> Result<ModelFolder> {
        let lacking: Vec<&str> = [
            ("--vae", self.vae.is_none()),
            ("--text-encoder", self.text_encoder.is_none()),
        ]
        .into_iter()
        .filter_map(|(option, lacks)| lacks.then_some(option))
        .collect();
        if !lacking.is_empty() {
            return Err(Failure::usage(format!(
                "--transformer: needs {} too, or --model with a folder that has the other components",
                lacking.join(" and ")
            )));
        }
        let parent = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Ok(ModelFolder::Disk(parent.to_owned()))
    }

    fn control_wiring(&self) -> Result<Option<ControlWiring>> {
        match self.control_wiring.as_deref() {
            None => Ok(None),
            Some("diffusers") => Ok(Some(ControlWiring::Diffusers)),
            Some("native") => Ok(Some(ControlWiring::Native)),
            Some(other) => Err(Failure::usage(format!(
                "--control-wiring: {other:?} is neither diffusers nor native"
            ))),
        }
    }

    fn heads(&self) -> Result<Option<NativeHeads>> {
        match self.heads[..] {
            [] => Ok(None),
            [attention, cross_attention] => Ok(Some(NativeHeads {
                attention,
                cross_attention,
            })),
            _ => Err(Failure::usage(
                "--heads: expected two numbers, self-attention and cross-attention, such as 36,16",
            )),
        }
    }
}
