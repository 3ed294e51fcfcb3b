//! Codewords as moving averages of the vectors that take them.

use brisk_models::vila_u::tower::TowerConfig;
use brisk_nn::{Init, Weights};
use candle_core::Var;

use super::recipe::CodebookSettings;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::tensors;

/// Keeps sizes of codewords that nothing takes above zero.
const EPSILON: f64 = 1e-5;
/// Size from which a codeword is taken to be in use.
const USED: f32 = 1.0;
/// Deviation of what is added to vectors that are used several times, times the root of their width.
const NOISE: f64 = 0.01;

/// Where the codebooks stand in the tower's file.
const CODEBOOKS: &str = "rqvaesiglip.quantizer.codebooks";
const SIZES: &str = "cluster_size_ema";
const SUMS: &str = "embed_ema";

/// The codebooks of a run, with what their averages are made of.
pub(super) struct Codebooks {
    settings: CodebookSettings,
    books: Vec<Book>,
}

struct Book {
    /// `[codewords + 1, C]`; the last row is no codeword.
    table: Var,
    /// How often each codeword is taken, `[codewords]`.
    sizes: Var,
    /// Sums of the vectors that take it, `[codewords, C]`.
    sums: Var,
}

/// Vectors `[places, C]` of a depth, and the codewords that they took.
pub(super) struct Taken<'a> {
    pub vectors: &'a [f32],
    pub codes: &'a [u32],
}

impl Codebooks {
    /// Those of weights from which a tower was loaded; what averages are made of becomes variables beside them.
    pub fn of(config: &TowerConfig, settings: CodebookSettings, weights: &Weights) -> Result<Self> {
        let count = if config.shared_codebook {
            1
        } else {
            config.depth
        };
        for index in 0..count {
            let weights = weights.pp(CODEBOOKS).pp(index);
            weights.get(SIZES, &[config.n_embed], Init::Zeros)?;
            weights.get(SUMS, &[config.n_embed, config.embed_dim], Init::Zeros)?;
        }
        let variables = weights.variables();
        let variable = |index: usize, name: &str| {
            let name = format!("{CODEBOOKS}.{index}.{name}");
            let found = variables.iter().find(|(known, _)| *known == name);
            let found = found.map(|(_, variable)| variable.clone());
            found.ok_or_else(|| Error::Data(format!("the tower has no {name}")))
        };
        let books = (0..count).map(|index| {
            Ok(Book {
                table: variable(index, "weight")?,
                sizes: variable(index, SIZES)?,
                sums: variable(index, SUMS)?,
            })
        });
        Ok(Self {
            settings,
            books: books.collect::<Result<_>>()?,
        })
    }

    /// Moves the codewords of a depth to what took them. Returns how many began anew.
    pub fn follow(&self, depth: usize, taken: &Taken, rng: &mut Rng) -> Result<usize> {
        let book = &self.books[depth.min(self.books.len() - 1)];
        let values = |variable: &Var| tensors::values(&variable.as_tensor().into());
        let mut averages = Averages {
            width: book.sums.dims()[1],
            sizes: values(&book.sizes)?,
            sums: values(&book.sums)?,
        };
        averages.add(self.settings.decay, taken);
        let restarted = match self.settings.restart_unused_codes {
            true => averages.restart(taken.vectors, rng),
            false => 0,
        };
        let words = averages.codewords();
        tensors::update(&book.table, |table| {
            table[..words.len()].copy_from_slice(&words)
        })?;
        tensors::set(&book.sizes, averages.sizes)?;
        tensors::set(&book.sums, averages.sums)?;
        Ok(restarted)
    }
}

/// What the codewords of a book are made of.
struct Averages {
    width: usize,
    sizes: Vec<f32>,
    sums: Vec<f32>,
}

impl Averages {
    fn add(&mut self, decay: f64, taken: &Taken) {
        let (decay, rest) = (decay as f32, (1.0 - decay) as f32);
        let mut counts = vec![0f32; self.sizes.len()];
        let mut added = vec![0f32; self.sums.len()];
        let vectors = taken.vectors.chunks_exact(self.width);
        for (vector, code) in vectors.zip(taken.codes) {
            let code = *code as usize;
            counts[code] += 1.0;
            let sum = &mut added[code * self.width..][..self.width];
            sum.iter_mut()
                .zip(vector)
                .for_each(|(sum, value)| *sum += value);
        }
        let mix = |old: &mut [f32], new: &[f32]| {
            old.iter_mut()
                .zip(new)
                .for_each(|(old, new)| *old = decay * *old + rest * new);
        };
        mix(&mut self.sizes, &counts);
        mix(&mut self.sums, &added);
    }

    /// Codewords that are hardly taken become vectors by lot, no vector twice; where there are too few, they are
    /// repeated with a little noise.
    fn restart(&mut self, vectors: &[f32], rng: &mut Rng) -> usize {
        let count = self.sizes.len();
        let places = vectors.len() / self.width;
        if places == 0 {
            return 0;
        }
        let all = places * count.div_ceil(places);
        let order = rng.permutation(all);
        let deviation = NOISE / (self.width as f64).sqrt();
        let mut restarted = 0;
        for (code, place) in (0..count).zip(order) {
            if self.sizes[code] >= USED {
                continue;
            }
            restarted += 1;
            self.sizes[code] = 1.0;
            let vector = &vectors[place % places * self.width..][..self.width];
            let sum = &mut self.sums[code * self.width..][..self.width];
            for (sum, value) in sum.iter_mut().zip(vector) {
                let noise = match all > places {
                    true => (deviation * rng.uniform()) as f32,
                    false => 0.0,
                };
                *sum = value + noise;
            }
        }
        restarted
    }

    /// Sums over sizes that are smoothed as Laplace did.
    fn codewords(&self) -> Vec<f32> {
        let all: f64 = self.sizes.iter().map(|size| f64::from(*size)).sum();
        let scale = all / (all + self.sizes.len() as f64 * EPSILON);
        let sums = self.sums.chunks_exact(self.width);
        let words = sums.zip(&self.sizes).flat_map(|(sum, size)| {
            let size = ((f64::from(*size) + EPSILON) * scale) as f32;
            sum.iter().map(move |value| value / size)
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three codewords of two channels, of which the vectors take two.
    fn averages() -> Averages {
        Averages {
            width: 2,
            sizes: vec![4.0, 2.0, 0.5],
            sums: vec![4.0, 8.0, -2.0, 2.0, 9.0, 9.0],
        }
    }

    const TAKEN: Taken = Taken {
        vectors: &[1.0, 3.0, 2.0, 2.0, -1.0, 0.0],
        codes: &[0, 0, 1],
    };

    #[test]
    fn codewords_are_smoothed_averages() {
        let mut averages = averages();
        averages.add(0.9, &TAKEN);
        // 0.9·(4, 2, 0.5) + 0.1·(2, 1, 0), and of the sums (3, 5), (−1, 0), (0, 0).
        for (found, wanted) in averages.sizes.iter().zip([3.8, 1.9, 0.45]) {
            assert!((found - wanted).abs() < 1e-6);
        }
        for (found, wanted) in averages.sums.iter().zip([3.9, 7.7, -1.9, 1.8, 8.1, 8.1]) {
            assert!((found - wanted).abs() < 1e-5);
        }
        let scale = 6.15 / (6.15 + 3e-5);
        for (index, word) in averages.codewords().iter().enumerate() {
            let size = (f64::from(averages.sizes[index / 2]) + 1e-5) * scale;
            let wanted = f64::from(averages.sums[index]) / size;
            assert!((f64::from(*word) - wanted).abs() < 1e-5, "{index}");
        }
    }

    #[test]
    fn what_is_hardly_taken_becomes_a_vector() {
        let mut averages = averages();
        averages.add(0.9, &TAKEN);
        let (kept, rng) = (averages.sums[..4].to_vec(), &mut Rng::new(3));
        assert_eq!(averages.restart(TAKEN.vectors, rng), 1);
        assert_eq!((averages.sizes[2], &averages.sums[..4]), (1.0, &kept[..]));
        let begun = &averages.sums[4..];
        assert!(TAKEN.vectors.chunks(2).any(|vector| vector == begun));
        // One vector for three codewords: each gets it with noise of its own.
        averages.sizes.fill(0.0);
        assert_eq!(averages.restart(&[5.0, -5.0], rng), 3);
        for (index, value) in averages.sums.iter().enumerate() {
            let off = value - [5.0, -5.0][index % 2];
            assert!((0.0..=0.0072).contains(&off), "{off}");
        }
        assert_ne!(averages.sums[..2], averages.sums[2..4]);
    }
}
