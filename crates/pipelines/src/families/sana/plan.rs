//! A request checked against a model of the family, with everything decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use brisk_media::{Filter, Picture, resize_pil};

use super::load::Files;
use super::options as own;
use crate::diffusion::guidance::PerturbedAttention;
use crate::diffusion::resolution;
use crate::diffusion::schedulers::{SchedulerKind, scm};
use crate::diffusion::{DecodeMode, start_index};
use crate::error::{Error, Result};
use crate::options::{Latents, Scope, Support, keys};
use crate::request::{ImageRequest, check_length, preview_steps};

/// The two ways a SANA model was trained, which decide what options mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// SANA and SANA-1.5: velocity models with guidance from a second evaluation.
    Sana,
    /// SANA-Sprint: few-step models with guidance as an input.
    Sprint,
}

impl ModelKind {
    /// The options of this kind.
    pub fn support(self) -> &'static Support {
        match self {
            Self::Sana => &own::SANA,
            Self::Sprint => &own::SPRINT,
        }
    }

    fn usual_steps(self) -> usize {
        match self {
            Self::Sana => 20,
            Self::Sprint => 2,
        }
    }
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
    /// Sampler where a request names none.
    pub scheduler: SchedulerKind,
    /// Why a request must name its sampler.
    pub scheduler_problem: Option<(String, String)>,
    /// Shift of the time grid where a request gives none.
    pub shift: Option<f64>,
    /// Text put before every prompt where a request gives none.
    pub instruction: Option<String>,
}

/// A picture that steers the composition through a ControlNet.
#[derive(Debug, Clone)]
pub struct ControlImage {
    /// The picture, in the size that is drawn.
    pub picture: Arc<Picture>,
    /// Weight of its residuals.
    pub scale: f32,
}

/// A picture to start from.
#[derive(Debug, Clone)]
pub struct InitImage {
    /// The picture, in the size that is drawn.
    pub picture: Arc<Picture>,
    /// Share of the denoising that is done, in (0, 1].
    pub strength: f64,
}

/// A request with every decision made.
#[derive(Debug, Clone)]
pub struct SanaPlan {
    /// The prompts.
    pub prompts: Vec<String>,
    /// Pictures of each.
    pub images_per_prompt: usize,
    /// What to steer away from, where there is guidance from a second evaluation.
    pub negative: Option<String>,
    /// Text put before every prompt.
    pub instruction: Option<String>,
    /// Prompt tokens that are kept.
    pub max_tokens: usize,
    /// Height that is generated, in pixels.
    pub height: usize,
    /// Width that is generated, in pixels.
    pub width: usize,
    /// Height of the result.
    pub output_height: usize,
    /// Width of the result.
    pub output_width: usize,
    /// Steps of the whole grid, before an initial picture cuts it.
    pub steps: usize,
    /// Guidance weight.
    pub guidance: f32,
    /// Seed of the first picture's noise.
    pub seed: u64,
    /// Whether that seed gives the noise of all pictures, as one tensor.
    pub one_generator: bool,
    /// Sampler.
    pub scheduler: SchedulerKind,
    /// Shift of the time grid; none where there is no such grid.
    pub shift: Option<f64>,
    /// Perturbed-attention guidance, where asked for.
    pub pag: Option<PerturbedAttention>,
    /// Angles of a SANA-Sprint run, already cut for an initial picture.
    pub angles: Option<Vec<f32>>,
    /// Picture to start from.
    pub init: Option<InitImage>,
    /// Picture for the ControlNet.
    pub control: Option<ControlImage>,
    /// Initial noise.
    pub latents: Option<Arc<Latents>>,
    /// How latents become pictures.
    pub decode: DecodeMode,
    /// Steps after which a preview is shown, from 1.
    pub preview_steps: BTreeSet<usize>,
    /// Pictures in all.
    pub images: usize,
}

impl SanaPlan {
    /// Seed of a picture.
    pub fn seed_of(&self, picture: usize) -> u64 {
        match self.one_generator {
            true => self.seed,
            false => self.seed.wrapping_add(picture as u64),
        }
    }

    /// Whether previews are decoded as pictures are.
    pub(super) fn shows_whole_previews(&self, files: &Files) -> bool {
        files.preview.is_none() && !self.preview_steps.is_empty()
    }

    /// Seeds of all pictures.
    pub fn seeds(&self) -> Vec<u64> {
        (0..self.images).map(|index| self.seed_of(index)).collect()
    }
}

/// Default share of an initial picture that is replaced.
pub const DEFAULT_STRENGTH: f64 = 0.6;

/// Checks a request against a model and decides what it leaves open.
///
/// # Errors
/// Errors name the option; one that the model has no use for is [`Error::Unsupported`].
pub fn plan(request: &ImageRequest, model: &Capabilities) -> Result<SanaPlan> {
    let asked = &request.options;
    model
        .kind
        .support()
        .check(&model.model, Scope::Request, asked)?;
    request.check()?;
    let control = control_image(request, model)?;
    let init = init_image(request)?;
    let negative = asked.get(&keys::NEGATIVE_PROMPT);
    if let Some(text) = &negative {
        check_length(keys::NEGATIVE_PROMPT.name(), text)?;
    }
    let images = request.prompts.len() * request.images_per_prompt();
    let (output_height, output_width) = output_size(request, model)?;
    let (height, width) = generation_size(request, model, output_height, output_width);
    let given_angles = asked.get(&own::SCM_TIMESTEPS);
    let steps = match (&given_angles, asked.get(&keys::STEPS)) {
        (Some(_), Some(_)) => {
            return Err(Error::request(
                "steps",
                "cannot be combined with `scm-timesteps`",
            ));
        }
        (Some(angles), None) => scm::explicit_angles(angles)?.len() - 1,
        (None, Some(steps)) => steps,
        (None, None) => model.kind.usual_steps(),
    };
    let strength = init.as_ref().map(|init| init.strength);
    if let (ModelKind::Sana, Some(strength)) = (model.kind, strength)
        && start_index(steps, strength) == steps
    {
        return Err(too_weak(strength, steps));
    }
    let angles = match model.kind {
        ModelKind::Sana => None,
        ModelKind::Sprint => {
            let on_grid = asked.get(&own::STRENGTH_ON_GRID).unwrap_or(false);
            Some(angles(given_angles, steps, strength, on_grid)?)
        }
    };
    let walked = match (&angles, strength) {
        (Some(angles), _) => angles.len() - 1,
        (None, Some(strength)) => steps - start_index(steps, strength),
        (None, None) => steps,
    };
    let preview_steps = preview_steps(asked, walked)?;
    let guidance = asked.get(&keys::GUIDANCE).unwrap_or(model.guidance);
    let guided = model.kind == ModelKind::Sana && guidance > 1.0;
    let scheduler = match (asked.get(&own::SCHEDULER), &model.scheduler_problem) {
        (Some(name), _) => SchedulerKind::parse(&name)?,
        (None, None) => model.scheduler,
        (None, Some((at, problem))) => {
            return Err(Error::folder(
                at,
                format!("{problem}; `scheduler` dpm, dpm-native or euler takes its place"),
            ));
        }
    };
    let latents = asked.get(&keys::LATENTS);
    if let Some(latents) = &latents {
        check_latents(latents, model, images, height, width)?;
    }
    let instruction = asked.get(&own::INSTRUCTION).or(model.instruction.clone());
    let fit = |picture: &Arc<Picture>| fitted(picture, width, height);
    let init = match init {
        Some(InitImage { picture, strength }) => Some(InitImage {
            picture: fit(&picture)?,
            strength,
        }),
        None => None,
    };
    let control = match control {
        Some(ControlImage { picture, scale }) => Some(ControlImage {
            picture: fit(&picture)?,
            scale,
        }),
        None => None,
    };
    Ok(SanaPlan {
        prompts: request.prompts.clone(),
        images_per_prompt: request.images_per_prompt(),
        negative: guided.then(|| negative.unwrap_or_default()),
        instruction: instruction.filter(|text| !text.is_empty()),
        max_tokens: asked
            .get(&own::MAX_SEQUENCE_LENGTH)
            .unwrap_or(super::prompt::MAX_TOKENS),
        height,
        width,
        output_height,
        output_width,
        steps,
        guidance,
        seed: asked.get(&keys::SEED).unwrap_or(0),
        one_generator: asked.get(&own::ONE_GENERATOR).unwrap_or(false),
        scheduler,
        shift: asked.get(&own::SHIFT).or(model.shift),
        pag: perturbed_attention(request, model)?,
        angles,
        init,
        control,
        latents,
        decode: DecodeMode::named(asked.get(&own::DECODE).as_deref())?,
        preview_steps,
        images,
    })
}

/// A picture in the size that is drawn: it may be much larger, and no more of it goes along than is seen.
fn fitted(picture: &Arc<Picture>, width: usize, height: usize) -> Result<Arc<Picture>> {
    match (picture.width, picture.height) == (width, height) {
        true => Ok(Arc::clone(picture)),
        false => Ok(resize_pil(picture, width, height, Filter::Lanczos)?.into()),
    }
}

/// A picture given from memory may contradict itself.
fn check_picture(option: &'static str, picture: &Picture) -> Result<()> {
    if picture.check().is_ok() {
        return Ok(());
    }
    Err(Error::request(
        option,
        format!(
            "{} bytes are no picture of {} × {} RGB pixels",
            picture.pixels.len(),
            picture.width,
            picture.height
        ),
    ))
}

fn control_image(request: &ImageRequest, model: &Capabilities) -> Result<Option<ControlImage>> {
    let option = own::CONTROL_IMAGE.name();
    match (request.options.get(&own::CONTROL_IMAGE), model.controlnet) {
        (None, false) => Ok(None),
        (Some(_), false) => Err(Error::Unsupported {
            option,
            model: model.model.clone(),
            reason: "no ControlNet is loaded; give one with `controlnet`".to_owned(),
        }),
        (None, true) => Err(Error::request(
            option,
            "a ControlNet is loaded but no control image was given",
        )),
        (Some(picture), true) => {
            check_picture(option, &picture)?;
            Ok(Some(ControlImage {
                picture,
                scale: request.options.get(&own::CONTROL_SCALE).unwrap_or(1.0),
            }))
        }
    }
}

fn init_image(request: &ImageRequest) -> Result<Option<InitImage>> {
    let Some(picture) = request.options.get(&keys::INIT_IMAGE) else {
        return Ok(None);
    };
    check_picture(keys::INIT_IMAGE.name(), &picture)?;
    let strength = request.options.get(&keys::STRENGTH);
    Ok(Some(InitImage {
        picture,
        strength: strength.unwrap_or(DEFAULT_STRENGTH),
    }))
}

fn output_size(request: &ImageRequest, model: &Capabilities) -> Result<(usize, usize)> {
    let native = model.sample_size * model.ratio;
    let side = |key: &'static crate::options::Key<usize>| -> Result<usize> {
        let asked = request.options.get(key).unwrap_or(native);
        if asked.is_multiple_of(model.multiple) {
            return Ok(asked);
        }
        let below = asked / model.multiple * model.multiple;
        let above = below + model.multiple;
        let nearest = if below == 0 || above - asked <= asked - below {
            above
        } else {
            below
        };
        Err(Error::request(
            key.name(),
            format!(
                "{asked} is not a multiple of {}; the nearest is {nearest}",
                model.multiple
            ),
        ))
    };
    Ok((side(&keys::HEIGHT)?, side(&keys::WIDTH)?))
}

/// The nearest trained size, where the model has a table of them.
fn generation_size(
    request: &ImageRequest,
    model: &Capabilities,
    height: usize,
    width: usize,
) -> (usize, usize) {
    if request.options.get(&own::NO_BINNING).unwrap_or(false) {
        return (height, width);
    }
    resolution::nearest_bin(model.sample_size, height, width)
        .filter(|(height, width)| {
            height.is_multiple_of(model.multiple) && width.is_multiple_of(model.multiple)
        })
        .unwrap_or((height, width))
}

fn angles(
    given: Option<Vec<f32>>,
    steps: usize,
    strength: Option<f64>,
    on_grid: bool,
) -> Result<Vec<f32>> {
    let grid = match given {
        Some(angles) => scm::explicit_angles(&angles)?,
        None => scm::default_angles(steps)?,
    };
    match strength {
        Some(strength) if on_grid => {
            let start = start_index(steps, strength);
            if start == steps {
                return Err(too_weak(strength, steps));
            }
            Ok(grid[start..].to_vec())
        }
        Some(strength) => Ok(scm::angles_for_strength(&grid, strength)),
        None => Ok(grid),
    }
}

fn perturbed_attention(
    request: &ImageRequest,
    model: &Capabilities,
) -> Result<Option<PerturbedAttention>> {
    let Some(scale) = request.options.get(&own::PAG_SCALE) else {
        return Ok(None);
    };
    let layers = request
        .options
        .get(&own::PAG_LAYERS)
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
        adaptive: request.options.get(&own::PAG_ADAPTIVE).unwrap_or(0.0),
        layers,
    }))
}

fn check_latents(
    latents: &Latents,
    model: &Capabilities,
    images: usize,
    height: usize,
    width: usize,
) -> Result<()> {
    let expected = [
        images,
        model.latent_channels,
        height / model.ratio,
        width / model.ratio,
    ];
    latents.check(expected)
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
mod tests;
