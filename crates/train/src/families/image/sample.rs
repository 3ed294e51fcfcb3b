//! Samples of a model in training, by the loop of inference with guidance.

use brisk_models::sana::{CaptionContext, ForwardExtras, SanaTransformer};
use brisk_models::sana_controlnet::{ControlStart, SanaControlNet};
use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::dpm_solver::{DpmSolver, DpmSolverConfig};
use brisk_pipelines::diffusion::{Branch, Denoiser, Row, VelocityModel};
use brisk_pipelines::families::sana::prompt::MAX_TOKENS;
use brisk_pipelines::{Control, Result as PipelineResult};
use brisk_text::Tokenizer;

use super::lessons::tokens;
use super::{LEVELS, Models};
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

/// What steers a sheet: a ControlNet with what it is shown, `[P,h,w,C]`.
pub(super) struct Steering<'a> {
    pub controlnet: &'a SanaControlNet,
    pub latent: Tensor,
}

/// A caption as the transformer takes it, and as the ControlNet does.
struct Caption {
    own: CaptionContext,
    controls: Option<CaptionContext>,
}

/// The transformer with the captions of a sheet.
struct Captioned<'a> {
    transformer: &'a SanaTransformer,
    steering: Option<&'a Steering<'a>>,
    empty: Caption,
    prompts: Vec<Caption>,
}

/// What some rows are drawn by.
struct Rows {
    captions: CaptionContext,
    /// Captions and latents of the ControlNet.
    controls: Option<(CaptionContext, Tensor)>,
}

impl VelocityModel for Captioned<'_> {
    type Rows = Rows;

    fn rows(&self, rows: &[Row]) -> PipelineResult<Rows> {
        let captions: Vec<&Caption> = rows
            .iter()
            .map(|row| match row.branch {
                Branch::Unconditional => &self.empty,
                Branch::Conditional | Branch::Perturbed => &self.prompts[row.image],
            })
            .collect();
        let own: Vec<&CaptionContext> = captions.iter().map(|caption| &caption.own).collect();
        let of_controls = captions
            .iter()
            .filter_map(|caption| caption.controls.as_ref());
        let of_controls: Vec<&CaptionContext> = of_controls.collect();
        let controls = match self.steering {
            None => None,
            Some(steering) => {
                let shown = rows
                    .iter()
                    .map(|row| steering.latent.narrow(0, row.image, 1));
                let shown = shown.collect::<brisk_nn::Result<Vec<_>>>()?;
                Some((
                    CaptionContext::concat(&of_controls)?,
                    Tensor::cat(&shown, 0)?,
                ))
            }
        };
        Ok(Rows {
            captions: CaptionContext::concat(&own)?,
            controls,
        })
    }

    fn velocity(
        &self,
        rows: &Rows,
        latents: &Tensor,
        time: f32,
        _: Option<f32>,
    ) -> PipelineResult<Tensor> {
        let times = Tensor::full(time, latents.dim(0)?)?;
        let residuals = match (self.steering, &rows.controls) {
            (Some(steering), Some((captions, shown))) => {
                let start = ControlStart::Latent(latents);
                let controlnet = steering.controlnet;
                controlnet.forward(start, shown, &times, None, captions, 1.0)?
            }
            _ => Vec::new(),
        };
        let extras = ForwardExtras {
            residuals: &residuals,
            ..ForwardExtras::default()
        };
        let transformer = self.transformer;
        Ok(transformer.forward(latents, &times, None, &rows.captions, &extras)?)
    }

    fn time_scale(&self) -> f32 {
        self.transformer.config().timestep_scale as f32
    }
}

/// Latents `[P, h, w, C]` of some prompts by the recipe's sampling, always from the same noise.
pub(super) fn generate(
    models: &Models,
    tokenizer: &Tokenizer,
    recipe: &ImageRecipe,
    prompts: &[String],
    (height, width, channels): (usize, usize, usize),
    steering: Option<&Steering>,
) -> Result<Tensor> {
    let count = prompts.len();
    let encode = |prompt: &str| -> Result<Caption> {
        let (hidden, lengths) = models.rows(&[tokens(tokenizer, prompt, MAX_TOKENS)?])?;
        let controls = steering.map(|steering| {
            let controlnet = steering.controlnet;
            controlnet.encode_caption(&hidden, &lengths)
        });
        Ok(Caption {
            own: models.transformer.encode_caption(&hidden, &lengths)?,
            controls: controls.transpose()?,
        })
    };
    let captioned = Captioned {
        transformer: &models.transformer,
        steering,
        empty: encode("")?,
        prompts: prompts
            .iter()
            .map(|prompt| encode(prompt))
            .collect::<Result<_>>()?,
    };
    let noise = Rng::new(recipe.training.seed).normals(count * height * width * channels);
    let latents = Tensor::from_vec(noise, (count, height, width, channels))?;
    let config = DpmSolverConfig {
        shift: recipe.flow_shift,
        order: 2,
        train_timesteps: LEVELS,
    };
    let mut sampler = DpmSolver::new(&config, recipe.sample_steps);
    let guidance = recipe.guidance as f32;
    let denoiser = Denoiser::new(captioned, count, height * width, guidance > 1.0, None)?;
    // A sheet is a part of an update: it is neither shown step by step nor left half-way.
    let quiet = Control::silent();
    Ok(denoiser.run_flow(&mut sampler, 0, latents, guidance, &quiet, &mut |_| Ok(()))?)
}
