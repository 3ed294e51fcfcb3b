//! Samples of a model in training: Euler steps along the velocity, with guidance.

use brisk_models::sana::ForwardExtras;
use brisk_text::{Tokenizer, sana_prompt};
use candle_core::{Device, Tensor};

use super::captions::tokens;
use super::{LEVELS, Models};
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

/// Noise levels of `steps` steps, ending at 0: as the samplers of inference place them.
fn sigmas(steps: usize, shift: f64) -> Vec<f64> {
    let last = 1.0 - 1.0 / LEVELS as f64;
    let mut sigmas: Vec<f64> = (0..steps)
        .map(|step| {
            let sigma = last * (steps - step) as f64 / steps as f64;
            shift * sigma / (1.0 + (shift - 1.0) * sigma)
        })
        .collect();
    sigmas.push(0.0);
    sigmas
}

/// Latents `[P, h, w, C]` of the recipe's prompts, always from the same noise.
pub(super) fn generate(
    models: &Models,
    tokenizer: &Tokenizer,
    recipe: &ImageRecipe,
    (height, width, channels): (usize, usize, usize),
) -> Result<Tensor> {
    let count = recipe.sample_prompts.len();
    let mut prompts = vec![tokens(tokenizer, "", sana_prompt::MAX_TOKENS)?; count];
    for prompt in &recipe.sample_prompts {
        prompts.push(tokens(tokenizer, prompt, sana_prompt::MAX_TOKENS)?);
    }
    let context = models.encode(&prompts)?;
    let shape = (count, height, width, channels);
    let noise = Rng::new(recipe.training.seed).normals(count * height * width * channels);
    let mut sample = Tensor::from_vec(noise, shape, &Device::Cpu)?;
    let sigmas = sigmas(recipe.sample_steps, recipe.flow_shift);
    for pair in sigmas.windows(2) {
        let time = (pair[0] * LEVELS as f64).trunc() as f32;
        let times = Tensor::full(time, 2 * count, &Device::Cpu)?;
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
        sample = (sample + (guided * (pair[1] - pair[0]))?)?;
    }
    brisk_nn::check_finite(&sample, "denoise", "last step")?;
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_inference() {
        let sigmas = sigmas(20, 3.0);
        for (index, expected) in [
            (0, 0.9996665),
            (1, 0.9824195),
            (10, 0.7496248),
            (19, 0.1362397),
        ] {
            assert!((sigmas[index] - expected).abs() < 1e-6, "{}", sigmas[index]);
        }
        assert_eq!((sigmas.len(), sigmas[20]), (21, 0.0));
    }
}
