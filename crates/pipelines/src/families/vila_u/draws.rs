//! What the model leaves open, decided by each picture's own random numbers.

use brisk_models::vila_u::Chooser;
use brisk_nn::{Result, Tensor, logits};

use crate::autoregressive::Sampling;
use crate::random::Random;

/// How codes are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct How {
    /// The likeliest code everywhere.
    pub greedy: bool,
    pub temperature: f64,
    pub sampling: Sampling,
}

/// Random numbers of some pictures.
pub(super) struct Draws {
    how: How,
    pictures: Vec<Random>,
}

impl Draws {
    /// Of pictures with these seeds.
    pub fn new(how: How, seeds: &[u64]) -> Self {
        Self {
            how,
            pictures: seeds.iter().map(|seed| Random::new(*seed)).collect(),
        }
    }
}

impl Chooser for Draws {
    fn choose(&mut self, place: usize, depth: usize, logits: &Tensor) -> Result<Vec<u32>> {
        let rows = logits.to_vec2::<f32>()?;
        let decide = |(mut row, picture): (Vec<f32>, &Random)| {
            if self.how.greedy {
                return logits::likeliest(&row);
            }
            let factor = 1.0 / self.how.temperature as f32;
            row.iter_mut().for_each(|logit| *logit *= factor);
            self.how.sampling.limit(&mut row);
            let random = picture.at(place as u64).at(depth as u64);
            Sampling::draw(&row, random.uniform())
        };
        Ok(rows.into_iter().zip(&self.pictures).map(decide).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture's numbers are its own, whatever stands beside it.
    #[test]
    fn pictures_are_drawn_alike_alone_and_together() {
        let how = How {
            greedy: false,
            temperature: 1.5,
            sampling: Sampling {
                top_k: 9,
                top_p: 0.95,
            },
        };
        let values: Vec<f32> = (0..2 * 50).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
        let both = Tensor::from_slice(&values, (2, 50)).unwrap();
        let mut differ = false;
        for place in 0..20 {
            let together = Draws::new(how, &[7, 8]).choose(place, 1, &both).unwrap();
            for (row, seed) in [7, 8].into_iter().enumerate() {
                let own = both.narrow(0, row, 1).unwrap();
                let alone = Draws::new(how, &[seed]).choose(place, 1, &own).unwrap();
                assert_eq!(alone, together[row..=row]);
            }
            let other = Draws::new(how, &[7, 8]).choose(place, 2, &both).unwrap();
            differ |= other != together;
        }
        assert!(differ, "depths share no numbers");
        let greedy = How {
            greedy: true,
            ..how
        };
        let row = Tensor::from_slice(&[0.0f32, 3.0, 3.0], (1, 3)).unwrap();
        assert_eq!(Draws::new(greedy, &[1]).choose(0, 0, &row).unwrap(), [1]);
    }
}
