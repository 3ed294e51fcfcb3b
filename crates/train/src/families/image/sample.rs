//! Samples of a model in training, by the loop of inference with guidance.

use brisk_models::sana::{CaptionContext, ForwardExtras, SanaTransformer};
use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::dpm_solver::{DpmSolver, DpmSolverConfig};
use brisk_pipelines::diffusion::{Branch, Denoiser, Row, VelocityModel};
use brisk_pipelines::families::sana::prompt::MAX_TOKENS;
use brisk_pipelines::{Control, Result as PipelineResult};
use brisk_text::Tokenizer;

use super::captions::tokens;
use super::{LEVELS, Models};
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

/// The transformer with the captions of a sheet.
struct Captioned<'a> {
    transformer: &'a SanaTransformer,
    empty: CaptionContext,
    prompts: Vec<CaptionContext>,
}

impl VelocityModel for Captioned<'_> {
    type Rows = CaptionContext;

    fn rows(&self, rows: &[Row]) -> PipelineResult<CaptionContext> {
        let captions: Vec<_> = rows
            .iter()
            .map(|row| match row.branch {
                Branch::Unconditional => &self.empty,
                Branch::Conditional | Branch::Perturbed => &self.prompts[row.image],
            })
            .collect();
        Ok(CaptionContext::concat(&captions)?)
    }

    fn velocity(
        &self,
        captions: &CaptionContext,
        latents: &Tensor,
        time: f32,
        _: Option<f32>,
    ) -> PipelineResult<Tensor> {
        let times = Tensor::full(time, latents.dim(0)?)?;
        let extras = ForwardExtras::default();
        Ok(self
            .transformer
            .forward(latents, &times, None, captions, &extras)?)
    }

    fn time_scale(&self) -> f32 {
        self.transformer.config().timestep_scale as f32
    }
}

/// Latents `[P, h, w, C]` of the recipe's prompts, always from the same noise.
pub(super) fn generate(
    models: &Models,
    tokenizer: &Tokenizer,
    recipe: &ImageRecipe,
    (height, width, channels): (usize, usize, usize),
) -> Result<Tensor> {
    let count = recipe.sample_prompts.len();
    let encode = |prompt: &str| models.encode(&[tokens(tokenizer, prompt, MAX_TOKENS)?]);
    let captioned = Captioned {
        transformer: &models.transformer,
        empty: encode("")?,
        prompts: recipe
            .sample_prompts
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
