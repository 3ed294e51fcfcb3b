//! What the model leaves open, decided by each picture's own random numbers.

use brisk_models::hart::{Chooser, Chosen, Stage};
use brisk_nn::{Result, Tensor, logits};
use rayon::prelude::*;

use crate::autoregressive::Sampling;
use crate::diffusion::noise::TorchGenerator;
use crate::random::Random;

/// What a random number is for, so that no two uses share one.
#[derive(Clone, Copy)]
enum Use {
    Code = 1,
    Mixture = 2,
}

/// How pictures are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct How {
    /// The likeliest code everywhere, and no noise.
    pub greedy: bool,
    /// Whether codewords are mixed by their probabilities.
    pub smooth: bool,
    /// Most codes that come into question, where the schedule's number is not wanted.
    pub top_k: Option<usize>,
    /// Share of the probability of those that do.
    pub top_p: f64,
}

/// Random numbers of some pictures.
pub(super) struct Draws {
    how: How,
    places: Vec<Random>,
    generators: Vec<TorchGenerator>,
    /// What the diffusion head starts from, one after another, where that is given.
    start: Option<Vec<f32>>,
}

impl Draws {
    /// Of pictures with these seeds.
    pub fn new(how: How, seeds: &[u64], start: Option<Vec<f32>>) -> Self {
        Self {
            how,
            places: seeds.iter().map(|seed| Random::new(*seed)).collect(),
            generators: seeds
                .iter()
                .map(|seed| TorchGenerator::new(*seed))
                .collect(),
            start,
        }
    }

    /// The code of a place, whose logits become the shares of its mixture.
    fn decide(&self, stage: &Stage, place: usize, picture: usize, row: &mut [f32]) -> u32 {
        if self.how.greedy {
            return logits::likeliest(row);
        }
        let sampling = Sampling {
            top_k: self.how.top_k.unwrap_or(stage.top_k),
            top_p: self.how.top_p,
        };
        sampling.limit(row);
        let at = |purpose: Use| {
            let parts = [purpose as u64, stage.scale as u64, place as u64];
            parts.into_iter().fold(self.places[picture], Random::at)
        };
        let code = Sampling::draw(row, at(Use::Code).uniform());
        if self.how.smooth {
            let mixture = at(Use::Mixture);
            stage.mix(row, |code| mixture.at(code as u64).gumbel() as f32);
        }
        code
    }
}

impl Chooser for Draws {
    fn choose(&mut self, stage: &Stage, logits: &Tensor) -> Result<Chosen> {
        let (batch, count, width) = logits.dims3()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        let rows = values.par_chunks_exact_mut(width).enumerate();
        let codes = rows
            .map(|(index, row)| self.decide(stage, index % count, index / count, row))
            .collect();
        let shares = match self.how.smooth {
            true => Some(Tensor::from_vec(values, (batch * count, width))?),
            false => None,
        };
        Ok(Chosen { codes, shares })
    }

    fn noise(&mut self, step: usize, shape: [usize; 3]) -> Result<Tensor> {
        let each = shape[1] * shape[2];
        let mut drawn = || {
            let all = self.generators.iter_mut();
            all.flat_map(|generator| generator.randn(each)).collect()
        };
        let values = match (&self.start, step) {
            (Some(start), 0) => start.clone(),
            _ if self.how.greedy => vec![0.0; shape.iter().product()],
            _ => drawn(),
        };
        Tensor::from_vec(values, (shape[0], shape[1], shape[2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(seeds: &[u64], logits: &[f32]) -> (Chosen, Vec<f32>) {
        let how = How {
            greedy: false,
            smooth: true,
            top_k: Some(5),
            top_p: 0.95,
        };
        let mut draws = Draws::new(how, seeds, None);
        let stage = Stage::new(2, 5, 4.5);
        let shape = (seeds.len(), 40, 16);
        let logits = Tensor::from_slice(logits, shape).unwrap();
        let chosen = draws.choose(&stage, &logits).unwrap();
        let noise = draws.noise(0, [seeds.len(), 40, 3]).unwrap();
        (chosen, noise.flatten_all().unwrap().to_vec1().unwrap())
    }

    /// A picture's numbers are its own, whatever stands beside it.
    #[test]
    fn pictures_are_drawn_alike_alone_and_together() {
        let logits: Vec<f32> = (0..2 * 40 * 16)
            .map(|i| ((i * 37) as f32).sin() * 3.0)
            .collect();
        let (both, noise) = sampled(&[7, 8], &logits);
        for (picture, seed) in [7, 8].into_iter().enumerate() {
            let own = &logits[picture * 640..(picture + 1) * 640];
            let (alone, alone_noise) = sampled(&[seed], own);
            assert_eq!(alone.codes, both.codes[picture * 40..(picture + 1) * 40]);
            assert_eq!(alone_noise, noise[picture * 120..(picture + 1) * 120]);
            let shares = |chosen: &Chosen| chosen.shares.clone().unwrap().to_vec2::<f32>().unwrap();
            let (both, alone) = (shares(&both), shares(&alone));
            assert_eq!(alone[..], both[picture * 40..(picture + 1) * 40]);
            for row in &alone {
                let kept = row.iter().filter(|share| **share > 0.0).count();
                assert!((1..=5).contains(&kept), "{row:?}");
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
        // The same places of another seed are drawn otherwise.
        let same: Vec<f32> = logits[..640].repeat(2);
        let (chosen, _) = sampled(&[7, 8], &same);
        assert_ne!(chosen.codes[..40], chosen.codes[40..]);
    }

    #[test]
    fn greedy_draws_nothing() {
        let how = How {
            greedy: true,
            smooth: false,
            top_k: None,
            top_p: 1.0,
        };
        let start: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let mut draws = Draws::new(how, &[3], Some(start.clone()));
        let first = draws.noise(0, [1, 2, 3]).unwrap();
        assert_eq!(
            first.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            start
        );
        let next = draws.noise(1, [1, 2, 3]).unwrap();
        assert_eq!(
            next.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            [0.0; 6]
        );
        let logits = Tensor::from_slice(&[0.0f32, 3.0, 1.0], (1, 1, 3)).unwrap();
        let chosen = draws.choose(&Stage::new(0, 2, 1.0), &logits).unwrap();
        assert_eq!(chosen.codes, [1]);
        assert!(chosen.shares.is_none());
    }
}
