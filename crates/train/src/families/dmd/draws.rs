//! What chance decides of an update.

use brisk_pipelines::diffusion::schedulers::shifted;

use super::DmdRecipe;
use crate::families::video::flow::draw_level;
use crate::rng::Rng;

/// Of a sample.
pub(super) struct Draw {
    /// Which clip of the pool.
    pub clip: usize,
    /// Which of the student's steps is its last.
    pub step: usize,
    /// What it begins with.
    pub start: Vec<f32>,
    /// Noise level at which it is judged, above 0 and below 1.
    pub level: f32,
    /// With which noise.
    pub noise: Vec<f32>,
    /// Noise of the true clip that it is compared with; empty where there are no heads.
    pub real: Vec<f32>,
}

impl Draw {
    /// Of a sample to be judged; `each` values a latent.
    pub fn judged(recipe: &DmdRecipe, rng: &mut Rng, clip: usize, each: usize) -> Self {
        let (low, high) = recipe.time_range;
        let level = low + (high - low) * rng.uniform();
        Self {
            clip,
            step: rng.below(recipe.steps),
            start: rng.normals(each),
            level: shifted(level, recipe.flow_shift) as f32,
            noise: rng.normals(each),
            real: match recipe.has_heads() {
                true => rng.normals(each),
                false => Vec::new(),
            },
        }
    }

    /// Of a clip with noise.
    pub fn noised(recipe: &DmdRecipe, rng: &mut Rng, clip: usize, each: usize) -> Self {
        Self {
            clip,
            step: 0,
            start: Vec::new(),
            level: draw_level(rng, (0.0, 1.0), recipe.flow_shift),
            noise: rng.normals(each),
            real: Vec::new(),
        }
    }
}
