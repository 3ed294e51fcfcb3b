//! What an update leaves to chance, drawn before it is computed, so that its parts may be computed in any order.

use std::ops::Range;

use super::recipe::{CodesRecipe, DropLaw, KeptPlaces};
use crate::objectives::diffusion::Process;
use crate::rng::Rng;

/// The draws of a batch.
pub(super) struct Draws {
    /// Samples that see no text.
    pub absent: Vec<bool>,
    /// Places of the last scale that each sample keeps; equally many of each.
    pub kept: Vec<Vec<usize>>,
    /// Decides the code of every kept place, in 0..1.
    pub uniforms: Vec<f64>,
    /// Times of every kept place, `repeats` of each.
    pub times: Vec<usize>,
    /// Standard normal noise of all of them, `width` values each.
    pub noise: Vec<f32>,
    repeats: usize,
    width: usize,
}

impl Draws {
    /// For `samples` pictures whose last scale has `places` of `width` channels.
    pub fn new(
        recipe: &CodesRecipe,
        samples: usize,
        [places, width]: [usize; 2],
        rng: &mut Rng,
    ) -> Self {
        let absent = (0..samples).map(|_| match recipe.text_dropout_law {
            DropLaw::Share => rng.chance(recipe.text_dropout),
            DropLaw::Normal => rng.normal_pair().0 < recipe.text_dropout,
        });
        let absent = absent.collect();
        let kept = kept_places(&recipe.last_scale, places, rng);
        let chosen = (0..samples).map(|_| {
            let mut order = rng.permutation(places);
            order.truncate(kept);
            order
        });
        let chosen = chosen.collect();
        let repeats = recipe.diffusion.repeats;
        let rows = samples * kept;
        Self {
            absent,
            kept: chosen,
            uniforms: (0..rows).map(|_| rng.uniform()).collect(),
            times: (0..rows * repeats)
                .map(|_| rng.below(Process::TIMES))
                .collect(),
            noise: rng.normals(rows * repeats * width),
            repeats,
            width,
        }
    }

    /// Places that each sample keeps.
    fn count(&self) -> usize {
        self.kept.first().map_or(0, Vec::len)
    }

    /// The uniforms of some samples.
    pub fn uniforms_of(&self, samples: &Range<usize>) -> &[f64] {
        let count = self.count();
        &self.uniforms[samples.start * count..samples.end * count]
    }

    /// The times of some samples' places.
    pub fn times_of(&self, samples: &Range<usize>) -> &[usize] {
        let each = self.count() * self.repeats;
        &self.times[samples.start * each..samples.end * each]
    }

    /// The noise of some samples' places.
    pub fn noise_of(&self, samples: &Range<usize>) -> &[f32] {
        let each = self.count() * self.repeats * self.width;
        &self.noise[samples.start * each..samples.end * each]
    }
}

/// How many of `places` an update keeps.
fn kept_places(law: &KeptPlaces, places: usize, rng: &mut Rng) -> usize {
    // Drawn anew until it lies inside; a law of which nearly nothing does ends at its bound.
    let draws = (0..1000).map(|_| law.mean + law.deviation * rng.normal_pair().0);
    let mut inside = draws.filter(|share| (law.least..=1.0).contains(share));
    let share = inside.next().unwrap_or(law.least);
    let dropped = (share * places as f64).ceil() as usize;
    places - dropped.min(places - law.fewest.min(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_cut_off_law() {
        let mut rng = Rng::new(5);
        let law = KeptPlaces {
            mean: 1.0,
            deviation: 0.25,
            least: 0.5,
            fewest: 32,
        };
        let draws: Vec<usize> = (0..4000)
            .map(|_| kept_places(&law, 4096, &mut rng))
            .collect();
        assert!(draws.iter().all(|kept| (32..=2048).contains(kept)));
        let mean = draws.iter().sum::<usize>() as f64 / 4000.0 / 4096.0;
        assert!((mean - (1.0 - 0.819)).abs() < 0.01, "{mean}");
        // So few places that the fewest are always kept.
        assert!((0..100).all(|_| kept_places(&law, 64, &mut rng) == 32));
        assert_eq!(kept_places(&law, 16, &mut rng), 16);
    }
}
