//! A request for pictures: every option once, and the check that a model honours it or refuses it by name.

use brisk_media::Picture;

use crate::error::{Error, Result};
use crate::guidance::PerturbedAttention;
use crate::resolution;
use crate::schedulers::{SchedulerKind, check_steps, scm};

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
}

/// One option of [`ImageRequest`]: the single source for flags, HTTP fields and documentation.
#[derive(Debug, Clone, Copy)]
pub struct OptionInfo {
    /// Flag without its dashes; HTTP fields have `_` for `-`.
    pub name: &'static str,
    /// Placeholder of its value.
    pub value: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Whether SANA and SANA-1.5 honour it.
    pub sana: bool,
    /// Whether SANA-Sprint honours it.
    pub sprint: bool,
    /// What to do where it is refused.
    pub instead: &'static str,
}

const fn option(name: &'static str, value: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo {
        name,
        value,
        help,
        sana: true,
        sprint: true,
        instead: "",
    }
}

const fn sana_only(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    instead: &'static str,
) -> OptionInfo {
    OptionInfo {
        name,
        value,
        help,
        sana: true,
        sprint: false,
        instead,
    }
}

/// Every option of an image request.
pub const OPTIONS: &[OptionInfo] = &[
    option(
        "prompt",
        "TEXT",
        "what the picture shows; several prompts give several pictures",
    ),
    sana_only(
        "negative-prompt",
        "TEXT",
        "what the picture should not show",
        "SANA-Sprint has no second evaluation to steer away from; leave it out",
    ),
    option("width", "PIXELS", "width of the picture"),
    option("height", "PIXELS", "height of the picture"),
    option(
        "steps",
        "N",
        "denoising steps, 1 to 1000 (default 20; SANA-Sprint 2)",
    ),
    option(
        "guidance",
        "W",
        "how closely to follow the prompt (default 4.5)",
    ),
    option(
        "seed",
        "N",
        "seed of the noise; the same as a CPU torch.Generator's",
    ),
    option("images", "N", "pictures per prompt"),
    sana_only(
        "scheduler",
        "NAME",
        "dpm, dpm-native or euler",
        "SANA-Sprint always uses scm; leave it out",
    ),
    sana_only(
        "shift",
        "X",
        "shift of the time grid towards noise",
        "SANA-Sprint has angles instead; use --scm-timesteps",
    ),
    sana_only(
        "pag-scale",
        "P",
        "weight of perturbed-attention guidance (2 to 3 is usual)",
        "SANA-Sprint has no second evaluation; leave it out",
    ),
    sana_only(
        "pag-layers",
        "LIST",
        "blocks that are perturbed (default 8, or the middle)",
        "needs --pag-scale",
    ),
    sana_only(
        "pag-adaptive",
        "X",
        "how fast the perturbed-attention weight falls with time",
        "needs --pag-scale",
    ),
    sana_only(
        "control-image",
        "FILE",
        "picture whose edges steer the result",
        "there is no SANA-Sprint ControlNet",
    ),
    sana_only(
        "control-scale",
        "X",
        "weight of the control image (default 1)",
        "there is no SANA-Sprint ControlNet",
    ),
    option("init-image", "FILE", "picture to start from"),
    option(
        "strength",
        "X",
        "how much of the initial picture is replaced, above 0 up to 1 (default 0.6)",
    ),
    OptionInfo {
        name: "strength-on-grid",
        value: "",
        help: "round the strength up to whole steps, as diffusers does",
        sana: false,
        sprint: true,
        instead: "SANA always uses whole steps; leave it out",
    },
    OptionInfo {
        name: "scm-timesteps",
        value: "LIST",
        help: "falling angles in radians, replaces --steps",
        sana: false,
        sprint: true,
        instead: "only SANA-Sprint has angles; use --steps and --shift",
    },
    option(
        "max-sequence-length",
        "N",
        "prompt tokens that are kept (default 300)",
    ),
    option("instruction", "FILE|none", "text put before every prompt"),
    option(
        "no-binning",
        "",
        "generate at the exact size, not at the nearest trained one",
    ),
    option(
        "latents",
        "FILE",
        "initial noise, before scaling by the first sigma",
    ),
    option(
        "decode",
        "MODE",
        "auto, whole, strips (exact, little memory) or tiled (as diffusers)",
    ),
    option(
        "preview-interval",
        "N",
        "show an intermediate picture every N steps",
    ),
];

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

/// A request with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Height that is generated, in pixels.
    pub height: usize,
    /// Width that is generated, in pixels.
    pub width: usize,
    /// Height of the result.
    pub output_height: usize,
    /// Width of the result.
    pub output_width: usize,
    /// Steps of the whole grid, before an initial image cuts it.
    pub steps: usize,
    /// Guidance weight.
    pub guidance: f32,
    /// Perturbed-attention guidance, where asked for.
    pub pag: Option<PerturbedAttention>,
    /// Angles of a SANA-Sprint run, already cut for an initial image.
    pub angles: Option<Vec<f32>>,
    /// Strength for an initial image.
    pub strength: Option<f64>,
    /// Pictures in all.
    pub images: usize,
}

/// Longest side that is accepted, in pixels.
pub const MAX_SIDE: usize = 8192;
/// Most pictures of one request.
pub const MAX_IMAGES: usize = 256;
/// Longest prompt that is accepted, in bytes.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;
/// Default share of an initial image that is replaced.
pub const DEFAULT_STRENGTH: f64 = 0.6;

impl ImageRequest {
    /// A request for one prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompts: vec![prompt.into()],
            ..Self::default()
        }
    }

    /// Names of the options that differ from their default.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("prompt", !self.prompts.is_empty()),
            (
                "negative-prompt",
                self.negative_prompt
                    .as_deref()
                    .is_some_and(|text| !text.is_empty()),
            ),
            ("width", self.width.is_some()),
            ("height", self.height.is_some()),
            ("steps", self.steps.is_some()),
            ("guidance", self.guidance.is_some()),
            ("seed", self.seed != 0),
            ("images", self.images_per_prompt != 1),
            ("scheduler", self.scheduler.is_some()),
            ("shift", self.shift.is_some()),
            ("pag-scale", self.pag_scale.is_some()),
            ("pag-layers", self.pag_layers.is_some()),
            ("pag-adaptive", self.pag_adaptive.is_some()),
            ("control-image", self.control.is_some()),
            (
                "control-scale",
                self.control
                    .as_ref()
                    .is_some_and(|control| control.scale != 1.0),
            ),
            ("init-image", self.init.is_some()),
            (
                "strength",
                self.init
                    .as_ref()
                    .is_some_and(|init| init.strength.is_some()),
            ),
            (
                "strength-on-grid",
                self.init.as_ref().is_some_and(|init| init.on_grid),
            ),
            ("scm-timesteps", self.scm_timesteps.is_some()),
            (
                "max-sequence-length",
                self.max_sequence_length != brisk_text::sana_prompt::MAX_TOKENS,
            ),
            ("instruction", self.instruction.is_some()),
            ("no-binning", self.binning.is_some()),
            ("latents", self.latents.is_some()),
            ("decode", self.decode != DecodeMode::Auto),
            ("preview-interval", self.preview_interval.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    /// Checks the request against a model and fills in the defaults.
    ///
    /// Errors name the option; one that the model has no use for is [`Error::Unsupported`].
    pub fn validate(&self, model: &Capabilities) -> Result<Plan> {
        self.refuse_unsupported(model)?;
        self.check_prompts()?;
        let images = self.prompts.len() * self.images_per_prompt;
        let (output_height, output_width) = self.output_size(model)?;
        let (height, width) = self.generation_size(model, output_height, output_width)?;
        let strength = self.strength()?;
        let steps = match (&self.scm_timesteps, self.steps) {
            (Some(_), Some(_)) => {
                return Err(Error::request(
                    "steps",
                    "cannot be combined with --scm-timesteps",
                ));
            }
            (Some(angles), None) => scm::explicit_angles(angles)?.len() - 1,
            (None, Some(steps)) => steps,
            (None, None) => match model.kind {
                ModelKind::Sana => 20,
                ModelKind::Sprint => 2,
            },
        };
        check_steps(steps)?;
        let angles = self.angles(model, steps, strength)?;
        if let (ModelKind::Sana, Some(strength)) = (model.kind, strength)
            && start_index(steps, strength) == steps
        {
            return Err(too_weak(strength, steps));
        }
        let guidance = self.guidance.unwrap_or(4.5);
        if !(guidance.is_finite() && (0.0..=100.0).contains(&guidance)) {
            return Err(Error::request(
                "guidance",
                format!("{guidance} is outside 0..=100"),
            ));
        }
        if let Some(shift) = self.shift
            && !(shift.is_finite() && shift > 0.0 && shift <= 100.0)
        {
            return Err(Error::request(
                "shift",
                format!("{shift} is outside (0, 100]"),
            ));
        }
        if self.scheduler == Some(SchedulerKind::Scm) {
            return Err(Error::request(
                "scheduler",
                "scm is for SANA-Sprint; use dpm, dpm-native or euler",
            ));
        }
        if self.preview_interval == Some(0) {
            return Err(Error::request(
                "preview-interval",
                "0 is no interval; leave the option out for none",
            ));
        }
        if !(2..=8192).contains(&self.max_sequence_length) {
            return Err(Error::request(
                "max-sequence-length",
                format!("{} is outside 2..=8192", self.max_sequence_length),
            ));
        }
        let pag = self.perturbed_attention(model)?;
        self.check_latents(model, images, height, width)?;
        Ok(Plan {
            height,
            width,
            output_height,
            output_width,
            steps,
            guidance,
            pag,
            angles,
            strength,
            images,
        })
    }

    fn refuse_unsupported(&self, model: &Capabilities) -> Result<()> {
        for name in self.given() {
            let Some(info) = OPTIONS.iter().find(|info| info.name == name) else {
                continue;
            };
            let honoured = match model.kind {
                ModelKind::Sana => info.sana,
                ModelKind::Sprint => info.sprint,
            };
            let reason = if !honoured {
                info.instead
            } else if name == "control-image" && !model.controlnet {
                "no ControlNet is loaded; give one with --controlnet"
            } else {
                continue;
            };
            return Err(Error::Unsupported {
                option: info.name,
                model: model.model.clone(),
                reason: reason.to_owned(),
            });
        }
        let pictures = [
            ("init-image", self.init.as_ref().map(|init| &init.picture)),
            (
                "control-image",
                self.control.as_ref().map(|control| &control.picture),
            ),
        ];
        for (option, picture) in pictures {
            if let Some(picture) = picture
                && Picture::new(picture.width, picture.height, picture.pixels.clone()).is_err()
            {
                return Err(Error::request(
                    option,
                    format!(
                        "{} bytes are no picture of {} × {} RGB pixels",
                        picture.pixels.len(),
                        picture.width,
                        picture.height
                    ),
                ));
            }
        }
        if model.controlnet && self.control.is_none() {
            return Err(Error::request(
                "control-image",
                "a ControlNet is loaded but no control image was given",
            ));
        }
        if let Some(control) = &self.control
            && !control.scale.is_finite()
        {
            return Err(Error::request(
                "control-scale",
                format!("{} is not a finite number", control.scale),
            ));
        }
        Ok(())
    }

    fn check_prompts(&self) -> Result<()> {
        if self.prompts.is_empty() {
            return Err(Error::request("prompt", "no prompt was given"));
        }
        let negative = self
            .negative_prompt
            .as_ref()
            .map(|text| ("negative-prompt", text));
        for (option, text) in self
            .prompts
            .iter()
            .map(|text| ("prompt", text))
            .chain(negative)
        {
            if text.len() > MAX_PROMPT_BYTES {
                return Err(Error::request(
                    option,
                    format!(
                        "is {} bytes long; at most {MAX_PROMPT_BYTES} are accepted",
                        text.len()
                    ),
                ));
            }
        }
        let images = self.prompts.len().saturating_mul(self.images_per_prompt);
        if !(1..=MAX_IMAGES).contains(&images) {
            return Err(Error::request(
                "images",
                format!(
                    "{} prompts × {} pictures is outside 1..={MAX_IMAGES}",
                    self.prompts.len(),
                    self.images_per_prompt
                ),
            ));
        }
        Ok(())
    }

    fn output_size(&self, model: &Capabilities) -> Result<(usize, usize)> {
        let native = model.sample_size * model.ratio;
        let mut sides = [0; 2];
        for (side, (option, asked)) in sides
            .iter_mut()
            .zip([("height", self.height), ("width", self.width)])
        {
            let asked = asked.unwrap_or(native);
            if !(1..=MAX_SIDE).contains(&asked) {
                return Err(Error::request(
                    option,
                    format!("{asked} is outside {}..={MAX_SIDE}", model.multiple),
                ));
            }
            if asked % model.multiple != 0 {
                let below = asked / model.multiple * model.multiple;
                let above = below + model.multiple;
                let nearest = if below == 0 || above - asked <= asked - below {
                    above
                } else {
                    below
                };
                return Err(Error::request(
                    option,
                    format!(
                        "{asked} is not a multiple of {}; the nearest is {nearest}",
                        model.multiple
                    ),
                ));
            }
            *side = asked;
        }
        Ok((sides[0], sides[1]))
    }

    fn generation_size(
        &self,
        model: &Capabilities,
        height: usize,
        width: usize,
    ) -> Result<(usize, usize)> {
        match (
            self.binning,
            resolution::nearest_bin(model.sample_size, height, width),
        ) {
            (Some(false), _) | (None, None) => Ok((height, width)),
            (_, Some((height, width)))
                if height % model.multiple == 0 && width % model.multiple == 0 =>
            {
                Ok((height, width))
            }
            (None, Some(_)) => Ok((height, width)),
            (Some(true), _) => Err(Error::request(
                "no-binning",
                format!(
                    "{} has no table of trained sizes (sample_size {})",
                    model.model, model.sample_size
                ),
            )),
        }
    }

    fn strength(&self) -> Result<Option<f64>> {
        let Some(init) = &self.init else {
            return Ok(None);
        };
        let strength = init.strength.unwrap_or(DEFAULT_STRENGTH);
        if strength > 0.0 && strength <= 1.0 {
            Ok(Some(strength))
        } else {
            Err(Error::request(
                "strength",
                format!("{strength} is outside (0, 1]"),
            ))
        }
    }

    fn angles(
        &self,
        model: &Capabilities,
        steps: usize,
        strength: Option<f64>,
    ) -> Result<Option<Vec<f32>>> {
        if model.kind == ModelKind::Sana {
            return Ok(None);
        }
        let grid = match &self.scm_timesteps {
            Some(angles) => scm::explicit_angles(angles)?,
            None => scm::default_angles(steps)?,
        };
        Ok(Some(match strength {
            Some(strength) if self.init.as_ref().is_some_and(|init| init.on_grid) => {
                let start = start_index(steps, strength);
                if start == steps {
                    return Err(too_weak(strength, steps));
                }
                grid[start..].to_vec()
            }
            Some(strength) => scm::angles_for_strength(&grid, strength),
            None => grid,
        }))
    }

    fn perturbed_attention(&self, model: &Capabilities) -> Result<Option<PerturbedAttention>> {
        let scale = match self.pag_scale {
            Some(scale) if scale.is_finite() && (0.0..=100.0).contains(&scale) => scale,
            Some(scale) => {
                return Err(Error::request(
                    "pag-scale",
                    format!("{scale} is outside 0..=100"),
                ));
            }
            None => {
                for (option, given) in [
                    ("pag-layers", self.pag_layers.is_some()),
                    ("pag-adaptive", self.pag_adaptive.is_some()),
                ] {
                    if given {
                        return Err(Error::request(option, "has no effect without --pag-scale"));
                    }
                }
                return Ok(None);
            }
        };
        let adaptive = self.pag_adaptive.unwrap_or(0.0);
        if !(adaptive.is_finite() && adaptive >= 0.0) {
            return Err(Error::request(
                "pag-adaptive",
                format!("{adaptive} is not a number from 0 up"),
            ));
        }
        let layers = self
            .pag_layers
            .clone()
            .unwrap_or_else(|| vec![8.min(model.blocks / 2)]);
        if layers.is_empty() {
            return Err(Error::request("pag-layers", "the list is empty"));
        }
        if let Some(layer) = layers.iter().find(|layer| **layer >= model.blocks) {
            return Err(Error::request(
                "pag-layers",
                format!(
                    "{layer} is not one of the blocks 0..={}",
                    model.blocks.saturating_sub(1)
                ),
            ));
        }
        Ok((scale > 0.0).then_some(PerturbedAttention {
            scale,
            adaptive,
            layers,
        }))
    }

    fn check_latents(
        &self,
        model: &Capabilities,
        images: usize,
        height: usize,
        width: usize,
    ) -> Result<()> {
        let Some(latents) = &self.latents else {
            return Ok(());
        };
        let expected = [
            images,
            model.latent_channels,
            height / model.ratio,
            width / model.ratio,
        ];
        if latents.shape != expected {
            return Err(Error::request(
                "latents",
                format!(
                    "have shape {:?}; this request needs {expected:?}",
                    latents.shape
                ),
            ));
        }
        if latents.values.len() != expected.iter().product::<usize>() {
            return Err(Error::request(
                "latents",
                format!(
                    "hold {} values for shape {expected:?}",
                    latents.values.len()
                ),
            ));
        }
        if latents.values.iter().any(|value| !value.is_finite()) {
            return Err(Error::request("latents", "hold a value that is not finite"));
        }
        Ok(())
    }
}

/// First step of an image-to-image run: the share 1 − `strength` of the steps is skipped.
pub fn start_index(steps: usize, strength: f64) -> usize {
    let kept = (steps as f64 * strength).min(steps as f64);
    (steps as f64 - kept).max(0.0) as usize
}

fn too_weak(strength: f64, steps: usize) -> Error {
    Error::request(
        "strength",
        format!(
            "{strength} of {steps} steps leaves no step to run; use more steps or a higher strength"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(kind: ModelKind) -> Capabilities {
        Capabilities {
            model: "test".to_owned(),
            kind,
            multiple: 32,
            ratio: 32,
            latent_channels: 32,
            sample_size: 32,
            blocks: 20,
            controlnet: false,
        }
    }

    fn picture() -> Picture {
        Picture {
            width: 2,
            height: 2,
            pixels: vec![0; 12],
        }
    }

    /// A request with exactly this option given.
    fn with_option(name: &str) -> ImageRequest {
        let mut request = ImageRequest::new("a fox");
        match name {
            "prompt" => (),
            "negative-prompt" => request.negative_prompt = Some("blurry".to_owned()),
            "width" => request.width = Some(512),
            "height" => request.height = Some(512),
            "steps" => request.steps = Some(3),
            "guidance" => request.guidance = Some(2.0),
            "seed" => request.seed = 5,
            "images" => request.images_per_prompt = 2,
            "scheduler" => request.scheduler = Some(SchedulerKind::FlowEuler),
            "shift" => request.shift = Some(6.0),
            "pag-scale" => request.pag_scale = Some(2.0),
            "pag-layers" => (request.pag_scale, request.pag_layers) = (Some(2.0), Some(vec![3])),
            "pag-adaptive" => (request.pag_scale, request.pag_adaptive) = (Some(2.0), Some(0.1)),
            "control-image" => {
                request.control = Some(ControlImage {
                    picture: picture(),
                    scale: 1.0,
                })
            }
            "control-scale" => {
                request.control = Some(ControlImage {
                    picture: picture(),
                    scale: 0.5,
                })
            }
            "init-image" => {
                request.init = Some(InitImage {
                    picture: picture(),
                    strength: None,
                    on_grid: false,
                })
            }
            "strength" => {
                request.init = Some(InitImage {
                    picture: picture(),
                    strength: Some(0.5),
                    on_grid: false,
                })
            }
            "strength-on-grid" => {
                request.init = Some(InitImage {
                    picture: picture(),
                    strength: None,
                    on_grid: true,
                });
            }
            "scm-timesteps" => request.scm_timesteps = Some(vec![1.5, 1.0]),
            "max-sequence-length" => request.max_sequence_length = 77,
            "instruction" => request.instruction = Some(Instruction::None),
            "no-binning" => request.binning = Some(false),
            "latents" => {
                request.latents = Some(Latents {
                    shape: [1, 32, 32, 32],
                    values: vec![0.0; 32 * 1024],
                });
            }
            "decode" => request.decode = DecodeMode::Tiled,
            "preview-interval" => request.preview_interval = Some(1),
            other => panic!("option {other} has no test"),
        }
        request
    }

    #[test]
    fn every_option_is_honoured_or_refused_by_name() {
        for kind in [ModelKind::Sana, ModelKind::Sprint] {
            for info in OPTIONS {
                let request = with_option(info.name);
                assert!(
                    request.given().contains(&info.name),
                    "{} is not reported as given",
                    info.name
                );
                let mut model = model(kind);
                model.controlnet = kind == ModelKind::Sana && info.name.starts_with("control");
                let result = request.validate(&model);
                let honoured = if kind == ModelKind::Sana {
                    info.sana
                } else {
                    info.sprint
                };
                match result {
                    Ok(_) => assert!(honoured, "{} passed on {kind:?}", info.name),
                    Err(Error::Unsupported { option, .. }) => {
                        assert!(!honoured, "{} refused on {kind:?}", info.name);
                        assert!(
                            info.name == option
                                || info.name.split('-').next() == option.split('-').next()
                        );
                    }
                    Err(error) => panic!("{}: {error}", info.name),
                }
            }
        }
        let known: Vec<_> = OPTIONS.iter().map(|info| info.name).collect();
        for name in &known {
            assert!(
                with_option(name)
                    .given()
                    .iter()
                    .all(|given| known.contains(given))
            );
        }
    }

    #[test]
    fn defaults_by_family() {
        let request = ImageRequest::new("a fox");
        let plan = request.validate(&model(ModelKind::Sana)).unwrap();
        assert_eq!(
            (
                plan.steps,
                plan.height,
                plan.width,
                plan.guidance,
                plan.images
            ),
            (20, 1024, 1024, 4.5, 1)
        );
        assert_eq!((plan.angles, plan.pag), (None, None));
        let plan = request.validate(&model(ModelKind::Sprint)).unwrap();
        assert_eq!((plan.steps, plan.angles), (2, Some(vec![1.5708, 1.3, 0.0])));
    }

    #[test]
    fn values_out_of_range_name_their_option() {
        let sana = model(ModelKind::Sana);
        let cases: Vec<(&str, ImageRequest)> = vec![
            (
                "steps",
                ImageRequest {
                    steps: Some(0),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "steps",
                ImageRequest {
                    steps: Some(10_000),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "width",
                ImageRequest {
                    width: Some(1000),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "height",
                ImageRequest {
                    height: Some(0),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "height",
                ImageRequest {
                    height: Some(1 << 40),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "guidance",
                ImageRequest {
                    guidance: Some(f32::NAN),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "images",
                ImageRequest {
                    images_per_prompt: 0,
                    ..ImageRequest::new("x")
                },
            ),
            (
                "images",
                ImageRequest {
                    images_per_prompt: usize::MAX,
                    ..ImageRequest::new("x")
                },
            ),
            ("prompt", ImageRequest::default()),
            (
                "prompt",
                ImageRequest::new("x".repeat(MAX_PROMPT_BYTES + 1)),
            ),
            (
                "pag-layers",
                ImageRequest {
                    pag_scale: Some(1.0),
                    pag_layers: Some(vec![20]),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "pag-layers",
                ImageRequest {
                    pag_layers: Some(vec![2]),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "shift",
                ImageRequest {
                    shift: Some(0.0),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "max-sequence-length",
                ImageRequest {
                    max_sequence_length: 1,
                    ..ImageRequest::new("x")
                },
            ),
            (
                "preview-interval",
                ImageRequest {
                    preview_interval: Some(0),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "strength",
                ImageRequest {
                    init: Some(InitImage {
                        picture: picture(),
                        strength: Some(0.0),
                        on_grid: false,
                    }),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "strength",
                ImageRequest {
                    init: Some(InitImage {
                        picture: picture(),
                        strength: Some(1e-30),
                        on_grid: false,
                    }),
                    ..ImageRequest::new("x")
                },
            ),
            (
                "latents",
                ImageRequest {
                    latents: Some(Latents {
                        shape: [1, 32, 16, 32],
                        values: vec![0.0; 32 * 512],
                    }),
                    ..ImageRequest::new("x")
                },
            ),
        ];
        for (option, request) in cases {
            match request.validate(&sana) {
                Err(Error::Request { option: found, .. }) => assert_eq!(found, option),
                other => panic!("{option}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_size_comes_with_the_nearest_right_one() {
        let request = |width| ImageRequest {
            width: Some(width),
            ..ImageRequest::new("x")
        };
        let message = |width| {
            request(width)
                .validate(&model(ModelKind::Sana))
                .unwrap_err()
                .to_string()
        };
        assert!(
            message(1000).contains("992") || message(1000).contains("1024"),
            "{}",
            message(1000)
        );
        assert!(message(1001).contains("992"), "{}", message(1001));
        assert!(message(5).contains("32"), "{}", message(5));
    }

    #[test]
    fn binning_needs_a_table() {
        let request = ImageRequest {
            width: Some(1280),
            height: Some(704),
            ..ImageRequest::new("x")
        };
        let plan = request.validate(&model(ModelKind::Sana)).unwrap();
        assert_eq!(
            (
                plan.height,
                plan.width,
                plan.output_height,
                plan.output_width
            ),
            (768, 1344, 704, 1280)
        );
        let small = Capabilities {
            sample_size: 8,
            ..model(ModelKind::Sana)
        };
        let plan = request.validate(&small).unwrap();
        assert_eq!((plan.height, plan.width), (704, 1280));
        assert!(
            ImageRequest {
                binning: Some(true),
                ..request
            }
            .validate(&small)
            .is_err()
        );
    }

    #[test]
    fn strength_skips_the_share_the_reference_skips() {
        assert_eq!(start_index(20, 1.0), 0);
        assert_eq!(start_index(20, 0.6), 8);
        assert_eq!(start_index(2, 0.6), 0);
        assert_eq!(start_index(2, 0.5), 1);
    }
}
