//! Samples of a model in training, by the sampler of inference with guidance.

use brisk_models::sana::ForwardExtras;
use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::FlowSampler;
use brisk_pipelines::diffusion::schedulers::dpm_solver::{DpmSolver, DpmSolverConfig};
use brisk_pipelines::families::sana::prompt::MAX_TOKENS;
use brisk_text::Tokenizer;

use super::captions::tokens;
use super::{LEVELS, Models};
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

/// Latents `[P, h, w, C]` of the recipe's prompts, always from the same noise.
pub(super) fn generate(
    models: &Models,
    tokenizer: &Tokenizer,
    recipe: &ImageRecipe,
    (height, width, channels): (usize, usize, usize),
) -> Result<Tensor> {
    let count = recipe.sample_prompts.len();
    let mut prompts = vec![tokens(tokenizer, "", MAX_TOKENS)?; count];
    for prompt in &recipe.sample_prompts {
        prompts.push(tokens(tokenizer, prompt, MAX_TOKENS)?);
    }
    let context = models.encode(&prompts)?;
    let shape = (count, height, width, channels);
    let noise = Rng::new(recipe.training.seed).normals(count * height * width * channels);
    let mut sample = Tensor::from_vec(noise, shape)?;
    let config = DpmSolverConfig {
        shift: recipe.flow_shift,
        order: 2,
        train_timesteps: LEVELS,
    };
    let mut sampler = DpmSolver::new(&config, recipe.sample_steps);
    for (index, time) in sampler.timesteps().to_vec().into_iter().enumerate() {
        let times = Tensor::full(time, 2 * count)?;
        let velocity = models.transformer.forward(
            &Tensor::cat(&[&sample, &sample], 0)?,
            &times,
            None,
            &context,
            &ForwardExtras::default(),
        )?;
        let empty = velocity.narrow(0, 0, count)?;
        let prompted = velocity.narrow(0, count, count)?;
        let guided = (&empty + ((prompted - &empty)? * recipe.guidance)?)?;
        sample = sampler.step(index, &guided, &sample)?;
    }
    brisk_nn::check_finite(&sample, "denoise", "last step")?;
    Ok(sample)
}
