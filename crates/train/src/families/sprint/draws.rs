//! What chance decides of an update.

use std::ops::Range;

use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::scm::MAX_ANGLE;

use super::SprintRecipe;
use crate::error::Result;
use crate::objectives::draw_angle;
use crate::rng::Rng;

/// Angles and noise of as many samples.
#[derive(Debug, Clone, Default)]
pub(super) struct Draw {
    pub angles: Vec<f64>,
    /// In units of σ_d, channels last.
    pub noise: Vec<f32>,
}

impl Draw {
    fn new(rng: &mut Rng, law: (f64, f64), batch: usize, each: usize) -> Self {
        Self {
            angles: (0..batch).map(|_| draw_angle(rng, law)).collect(),
            noise: rng.normals(batch * each),
        }
    }

    /// Moves a share of the angles to noise alone.
    fn with_largest(mut self, rng: &mut Rng, share: f64) -> Self {
        for angle in &mut self.angles {
            if rng.chance(share) {
                *angle = f64::from(MAX_ANGLE);
            }
        }
        self
    }

    /// Of some of the samples.
    fn part(&self, range: &Range<usize>) -> Self {
        let each = self.noise.len() / self.angles.len().max(1);
        Self {
            angles: self.angles[range.clone()].to_vec(),
            noise: self.noise[range.start * each..range.end * each].to_vec(),
        }
    }

    /// The noise of pictures `[h,w,C]`.
    pub fn noise(&self, [height, width, channels]: [usize; 3]) -> Result<Tensor> {
        let shape = (self.angles.len(), height, width, channels);
        Ok(Tensor::from_slice(&self.noise, shape)?)
    }
}

/// Of an update of the student.
#[derive(Debug, Clone)]
pub(super) struct StudentDraws {
    pub guidance: Vec<f64>,
    /// Where it is held to the teacher.
    pub points: Draw,
    /// Where it draws what the discriminator sees; none: from the same points.
    pub drawn: Option<Draw>,
    /// Where the discriminator looks.
    pub seen: Draw,
}

impl StudentDraws {
    pub fn new(recipe: &SprintRecipe, rng: &mut Rng, batch: usize, each: usize) -> Self {
        let guidance = guidance(recipe, rng, batch);
        let points = Draw::new(rng, recipe.angle_law, batch, each);
        let drawn = (recipe.max_time_share > 0.0).then(|| {
            let draw = Draw::new(rng, recipe.angle_law, batch, each);
            draw.with_largest(rng, recipe.max_time_share)
        });
        Self {
            guidance,
            points,
            drawn,
            seen: Draw::new(rng, recipe.discriminator_angle_law, batch, each),
        }
    }

    pub fn part(&self, range: &Range<usize>) -> Self {
        Self {
            guidance: self.guidance[range.clone()].to_vec(),
            points: self.points.part(range),
            drawn: self.drawn.as_ref().map(|draw| draw.part(range)),
            seen: self.seen.part(range),
        }
    }
}

/// Of an update of the discriminator.
#[derive(Debug, Clone)]
pub(super) struct DiscriminatorDraws {
    pub guidance: Vec<f64>,
    /// Where the student draws.
    pub drawn: Draw,
    /// Where the discriminator looks at what the student drew.
    pub fake: Draw,
    /// Noise of the pictures that it compares, at the same angles.
    pub real: Vec<f32>,
    /// Where it looks at pictures with another's caption, if it does.
    pub misaligned: Option<Draw>,
}

impl DiscriminatorDraws {
    pub fn new(recipe: &SprintRecipe, rng: &mut Rng, batch: usize, each: usize) -> Self {
        let law = recipe.discriminator_angle_law;
        Self {
            guidance: guidance(recipe, rng, batch),
            drawn: Draw::new(rng, recipe.angle_law, batch, each)
                .with_largest(rng, recipe.max_time_share),
            fake: Draw::new(rng, law, batch, each),
            real: rng.normals(batch * each),
            misaligned: (recipe.misaligned_pairs && batch > 1)
                .then(|| Draw::new(rng, law, batch, each)),
        }
    }

    pub fn part(&self, range: &Range<usize>) -> Self {
        let each = self.real.len() / self.guidance.len().max(1);
        Self {
            guidance: self.guidance[range.clone()].to_vec(),
            drawn: self.drawn.part(range),
            fake: self.fake.part(range),
            real: self.real[range.start * each..range.end * each].to_vec(),
            misaligned: self.misaligned.as_ref().map(|draw| draw.part(range)),
        }
    }
}

fn guidance(recipe: &SprintRecipe, rng: &mut Rng, batch: usize) -> Vec<f64> {
    let scales = &recipe.guidance_scales;
    let drawn = (0..batch).map(|_| scales[rng.below(scales.len())]);
    drawn.collect()
}
