//! Flow matching: which point between clip and noise a sample is seen at, and what its prediction costs.

use std::ops::Range;

use brisk_nn::Trace;
use brisk_pipelines::diffusion::schedulers::shifted;

use super::networks::Models;
use super::pool::Pool;
use super::{FlowTarget, VideoRecipe};
use crate::error::{Error, Result};
use crate::loss::{self, Loss};
use crate::rng::Rng;

/// Times of the network per noise level.
pub(crate) const TIMES: f32 = 1000.0;

/// The noise level of a sample: logistic of a normal number, shifted.
pub(crate) fn draw_level(rng: &mut Rng, (mean, deviation): (f64, f64), shift: f64) -> f32 {
    let u = 1.0 / (1.0 + (-(mean + deviation * rng.normal_pair().0)).exp());
    shifted(u, shift) as f32
}

/// What chance decides of a sample.
pub(super) struct Draw {
    /// Which clip of the pool.
    pub clip: usize,
    /// Noise level, above 0 up to 1.
    level: f32,
    noise: Vec<f32>,
    /// Whether it sees the empty prompt, and with it a black picture.
    empty: bool,
    black: bool,
    /// Which of the versions of the first frame with noise it is shown.
    version: Option<usize>,
}

impl Draw {
    pub fn new(recipe: &VideoRecipe, rng: &mut Rng, clip: usize, each: usize) -> Self {
        let level = draw_level(rng, recipe.noise_law, recipe.flow_shift);
        let empty = rng.chance(recipe.text_dropout);
        Self {
            clip,
            level,
            empty,
            black: empty && rng.chance(recipe.black_share),
            version: recipe
                .first_frame_noise
                .map(|noise| rng.below(noise.versions)),
            noise: rng.normals(each),
        }
    }
}

/// The mean loss of a part of a batch.
pub(super) fn flow_loss(
    models: &Models,
    pool: &Pool,
    target: FlowTarget,
    draws: &[Draw],
    part: Range<usize>,
) -> Result<Loss> {
    let share = 1.0 / part.len().max(1) as f64;
    let mut total: Option<Loss> = None;
    for draw in &draws[part] {
        let clip = &pool.clips[draw.clip];
        let level = draw.level;
        let mixed = clip.latent.iter().zip(&draw.noise);
        let (input, velocity): (Vec<f32>, Vec<f32>) = mixed
            .map(|(clean, noise)| ((1.0 - level) * clean + level * noise, noise - clean))
            .unzip();
        let prompt = match draw.empty {
            true => &pool.empty,
            false => &clip.prompt,
        };
        let pixels = pool.pixels(clip, draw.black)?;
        let by = models.conditioning(prompt, pixels.as_ref())?;
        let seen = pool.seen(&pool.latent(&input)?, clip, draw.version)?;
        let transformer = &models.transformer;
        let predicted = transformer.forward(&seen, TIMES * level, &by, &mut Trace::none())?;
        let loss = loss::mean_square(&predicted, &velocity)?;
        let weight = match target {
            FlowTarget::Velocity => share,
            FlowTarget::Clean => share * f64::from(level * level),
        };
        total = Some(match total {
            Some(total) => total.and(loss, weight)?,
            None => loss.scaled(weight)?,
        });
    }
    total.ok_or_else(|| Error::Data("a part of a batch without samples".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_shifted_towards_noise() {
        let mut rng = Rng::new(1);
        let levels: Vec<f32> = (0..20_000)
            .map(|_| draw_level(&mut rng, (0.0, 1.0), 5.0))
            .collect();
        // The median of u is a half, and 5·½/(1 + 4·½) = 5/6.
        let below = levels.iter().filter(|level| **level < 5.0 / 6.0).count();
        assert!((below as f64 / 2e4 - 0.5).abs() < 0.02);
        assert!(levels.iter().all(|level| *level > 0.0 && *level < 1.0));
    }
}
