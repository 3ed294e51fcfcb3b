//! The transformer, with ControlNet and perturbed attention, as a velocity model.

use std::ops::Range;
use std::sync::PoisonError;

use brisk_models::sana::{
    CaptionContext, ControlWiring, ForwardExtras, Perturbed, SanaTransformer,
};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet};
use brisk_nn::{Tensor, Trace};

use super::text::Captions;
use crate::block_importance::BlockWatcher;
use crate::diffusion::{Branch, Row, VelocityModel};
use crate::error::Result;

/// A ControlNet with its encoded picture `[1, h, w, C]`.
pub(super) struct Steering<'a> {
    pub(super) model: &'a SanaControlNet,
    pub(super) latent: Tensor,
    pub(super) scale: f32,
    pub(super) wiring: ControlWiring,
}

/// Caption contexts of one network: per prompt, and one or per prompt for the negative side.
pub(super) struct Contexts {
    conditional: Vec<CaptionContext>,
    unconditional: Vec<CaptionContext>,
}

impl Contexts {
    /// Encodes caption rows `[1, L, D]` with `encode`.
    pub(super) fn encode(
        captions: &Captions,
        encode: impl Fn(&Tensor, &[usize]) -> brisk_nn::Result<CaptionContext>,
    ) -> Result<Self> {
        let each = |rows: &Vec<Tensor>| -> Result<Vec<CaptionContext>> {
            rows.iter()
                .map(|text| Ok(encode(text, &[text.dim(1)?])?))
                .collect()
        };
        Ok(Self {
            conditional: each(&captions.conditional)?,
            unconditional: each(&captions.unconditional)?,
        })
    }

    fn of(&self, row: &Row, images_per_prompt: usize) -> &CaptionContext {
        let prompt = row.image / images_per_prompt;
        match row.branch {
            // One negative prompt may serve all.
            Branch::Unconditional => &self.unconditional[prompt.min(self.unconditional.len() - 1)],
            Branch::Conditional | Branch::Perturbed => &self.conditional[prompt],
        }
    }

    fn gather(&self, rows: &[Row], images_per_prompt: usize) -> Result<CaptionContext> {
        let parts: Vec<_> = rows
            .iter()
            .map(|row| self.of(row, images_per_prompt))
            .collect();
        Ok(CaptionContext::concat(&parts)?)
    }
}

/// The transformer set up for one request.
pub(super) struct SanaVelocity<'a> {
    pub(super) transformer: &'a SanaTransformer,
    pub(super) contexts: Contexts,
    /// The ControlNet with its own captions.
    pub(super) steering: Option<(Steering<'a>, Contexts)>,
    pub(super) images_per_prompt: usize,
    /// Blocks whose self-attention is replaced by the identity in perturbed rows.
    pub(super) perturbed_layers: Vec<usize>,
    /// Sees what every block is given and gives.
    pub(super) blocks: Option<BlockWatcher>,
}

/// What consecutive rows need at every step.
pub(super) struct SanaRows {
    count: usize,
    caption: CaptionContext,
    control_caption: Option<CaptionContext>,
    perturbed: Option<Range<usize>>,
}

impl SanaVelocity<'_> {
    /// A pass of the transformer, whose blocks may be watched.
    fn forward(
        &self,
        latents: &Tensor,
        time: &Tensor,
        guidance: Option<&Tensor>,
        caption: &CaptionContext,
        extras: &ForwardExtras,
    ) -> Result<Tensor> {
        let Some(watcher) = &self.blocks else {
            let output = self
                .transformer
                .forward(latents, time, guidance, caption, extras)?;
            return Ok(output);
        };
        let mut blocks = watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problem = None;
        let mut see = |name: &str, tokens: &Tensor| {
            let index = name.strip_prefix("transformer_blocks.").map(str::parse);
            let seen = match index {
                Some(Ok(index)) => blocks.block(index, tokens),
                None if name == "patch_embed" => blocks.begin(tokens),
                _ => return,
            };
            problem = problem.take().or(seen.err());
        };
        let trace = &mut Trace::parts(&mut see);
        let output = self
            .transformer
            .forward_traced(latents, time, guidance, caption, extras, trace)?;
        match problem {
            Some(problem) => Err(problem.into()),
            None => Ok(output),
        }
    }
}

impl VelocityModel for SanaVelocity<'_> {
    type Rows = SanaRows;

    fn rows(&self, rows: &[Row]) -> Result<SanaRows> {
        let first = rows.iter().position(|row| row.branch == Branch::Perturbed);
        let control = self.steering.as_ref();
        Ok(SanaRows {
            count: rows.len(),
            caption: self.contexts.gather(rows, self.images_per_prompt)?,
            control_caption: control
                .map(|(_, contexts)| contexts.gather(rows, self.images_per_prompt))
                .transpose()?,
            perturbed: first.map(|first| first..rows.len()),
        })
    }

    fn velocity(
        &self,
        rows: &SanaRows,
        latents: &Tensor,
        time: f32,
        guidance: Option<f32>,
    ) -> Result<Tensor> {
        let column = |value: f32| Tensor::full(value, rows.count);
        let time = column(time)?;
        let guidance = guidance.map(column).transpose()?;
        let mut extras = ForwardExtras {
            perturbed: rows.perturbed.clone().map(|rows| Perturbed {
                layers: self.perturbed_layers.clone(),
                rows,
            }),
            ..ForwardExtras::default()
        };
        let (first_block, residuals);
        if let (Some((steering, _)), Some(caption)) = (&self.steering, &rows.control_caption) {
            let picture = steering.latent.repeat((rows.count, 1, 1, 1))?;
            let start = match steering.wiring {
                ControlWiring::Diffusers => ControlStart::Latent(latents),
                ControlWiring::Native => {
                    first_block = self.transformer.first_block(
                        latents,
                        &time,
                        guidance.as_ref(),
                        &rows.caption,
                        &extras,
                    )?;
                    extras.after_first_block = Some(&first_block);
                    ControlStart::FirstBlock(&first_block)
                }
            };
            let scale = f64::from(steering.scale);
            residuals = steering.model.forward(
                start,
                &picture,
                &time,
                guidance.as_ref(),
                caption,
                scale,
            )?;
            extras.residuals = &residuals;
            extras.residual_wiring = steering.wiring;
        }
        let output = self.forward(latents, &time, guidance.as_ref(), &rows.caption, &extras)?;
        let channels = latents.dim(3)?;
        if output.dim(3)? == channels {
            return Ok(output);
        }
        // A learned variance follows the velocity; sampling has no use for it.
        Ok(output.narrow(3, 0, channels)?.contiguous()?)
    }

    fn time_scale(&self) -> f32 {
        self.transformer.config().timestep_scale as f32
    }
}
