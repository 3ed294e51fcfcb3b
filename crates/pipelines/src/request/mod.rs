//! A request for pictures: every option once, and the check that a model honours it or refuses it by name.

mod options;
mod validate;

pub use options::{OPTIONS, OptionInfo};
pub use validate::{DEFAULT_STRENGTH, MAX_IMAGES, MAX_PROMPT_BYTES, MAX_SIDE, Plan, start_index};

use brisk_media::Picture;

use crate::error::{Error, Result};
use crate::schedulers::SchedulerKind;

/// The two ways a SANA model was trained, which decide what options mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// SANA and SANA-1.5: velocity models with guidance from a second evaluation.
    Sana,
    /// SANA-Sprint: few-step models with guidance as an input.
    Sprint,
}

/// What of a loaded model decides which requests it can serve.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Name for messages, the folder or hub id.
    pub model: String,
    /// Family.
    pub kind: ModelKind,
    /// Pixels per latent cell times the patch size; heights and widths are multiples of it.
    pub multiple: usize,
    /// Pixels per latent cell.
    pub ratio: usize,
    /// Latent channels.
    pub latent_channels: usize,
    /// `sample_size` of the transformer: latent cells per side at the trained size.
    pub sample_size: usize,
    /// Transformer blocks.
    pub blocks: usize,
    /// Whether a ControlNet is loaded.
    pub controlnet: bool,
    /// Guidance where a request gives none.
    pub guidance: f32,
}

/// The text put before every prompt ("complex human instruction").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Instruction {
    /// `complex_human_instruction.txt` of the model's folder (empty for none), else brisk's own.
    #[default]
    Default,
    /// No instruction.
    None,
    /// This text, byte for byte.
    Text(String),
}

/// A picture that steers the composition through a ControlNet.
#[derive(Debug, Clone)]
pub struct ControlImage {
    /// The picture, of any size; it is resized to the generation size.
    pub picture: Picture,
    /// Weight of its residuals, 1 by default.
    pub scale: f32,
}

/// A picture to start from.
#[derive(Debug, Clone)]
pub struct InitImage {
    /// The picture, of any size; it is resized to the generation size.
    pub picture: Picture,
    /// Share of the denoising that is done, in (0, 1]; `None` for 0.6.
    pub strength: Option<f64>,
    /// SANA-Sprint only: keep whole steps of the grid, as diffusers does, rather than a start between
    /// two of them. With two steps, any strength above 0.5 then ignores the picture.
    pub on_grid: bool,
}

/// Initial noise given by the caller, unit normal.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Images, channels, rows, columns.
    pub shape: [usize; 4],
    /// Row-major values.
    pub values: Vec<f32>,
}

/// How latents become pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecodeMode {
    /// Whole up to 1024 × 1024 pixels where memory allows, strips above.
    #[default]
    Auto,
    /// In one piece.
    Whole,
    /// In horizontal strips that give the same numbers as [`DecodeMode::Whole`].
    Strips,
    /// In overlapping blended tiles as diffusers does it; numbers differ from the others.
    Tiled,
}

impl DecodeMode {
    /// Reads `auto`, `whole`, `strips` or `tiled`.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "auto" => Self::Auto,
            "whole" => Self::Whole,
            "strips" => Self::Strips,
            "tiled" => Self::Tiled,
            _ => {
                return Err(Error::request(
                    "decode",
                    format!("unknown mode {name:?}; use auto, whole, strips or tiled"),
                ));
            }
        })
    }
}

/// What to draw. `None` stands for the model's default.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// At least one prompt.
    pub prompts: Vec<String>,
    /// What to steer away from; empty by default.
    pub negative_prompt: Option<String>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// Denoising steps.
    pub steps: Option<usize>,
    /// Guidance weight.
    pub guidance: Option<f32>,
    /// Seed of the noise.
    pub seed: u64,
    /// Pictures per prompt.
    pub images_per_prompt: usize,
    /// Sampler, where the model leaves a choice.
    pub scheduler: Option<SchedulerKind>,
    /// Shift of the time grid.
    pub shift: Option<f64>,
    /// Weight of perturbed-attention guidance; on where given and not 0.
    pub pag_scale: Option<f32>,
    /// Blocks to perturb.
    pub pag_layers: Option<Vec<usize>>,
    /// Fall of the perturbed-attention weight with time.
    pub pag_adaptive: Option<f32>,
    /// Picture that steers the composition.
    pub control: Option<ControlImage>,
    /// Picture to start from.
    pub init: Option<InitImage>,
    /// Angles of a SANA-Sprint run, replacing `steps`.
    pub scm_timesteps: Option<Vec<f32>>,
    /// Prompt tokens that are kept.
    pub max_sequence_length: usize,
    /// Text put before every prompt; `None` for what the pipeline was loaded with.
    pub instruction: Option<Instruction>,
    /// Whether to generate at the nearest trained size; `None` for yes where the model has a table.
    pub binning: Option<bool>,
    /// Initial noise.
    pub latents: Option<Latents>,
    /// How latents become pictures.
    pub decode: DecodeMode,
    /// Steps between previews.
    pub preview_interval: Option<usize>,
}

impl Default for ImageRequest {
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            negative_prompt: None,
            width: None,
            height: None,
            steps: None,
            guidance: None,
            seed: 0,
            images_per_prompt: 1,
            scheduler: None,
            shift: None,
            pag_scale: None,
            pag_layers: None,
            pag_adaptive: None,
            control: None,
            init: None,
            scm_timesteps: None,
            max_sequence_length: brisk_text::sana_prompt::MAX_TOKENS,
            instruction: None,
            binning: None,
            latents: None,
            decode: DecodeMode::Auto,
            preview_interval: None,
        }
    }
}

impl ImageRequest {
    /// A request for one prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompts: vec![prompt.into()],
            ..Self::default()
        }
    }
}
