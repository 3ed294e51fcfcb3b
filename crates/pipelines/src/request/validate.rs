//! The check of a request against a model.

use brisk_media::Picture;

use super::{Capabilities, ImageRequest, ModelKind, OPTIONS};
use crate::error::{Error, Result};
use crate::guidance::PerturbedAttention;
use crate::resolution;
use crate::schedulers::{SchedulerKind, check_steps, scm};

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
        let guidance = self.guidance.unwrap_or(model.guidance);
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
            if !asked.is_multiple_of(model.multiple) {
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
                if height.is_multiple_of(model.multiple)
                    && width.is_multiple_of(model.multiple) =>
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
mod tests;
