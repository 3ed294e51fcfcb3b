//! The network.

use brisk_nn::{Embedding, Init, Tensor, Weights};

use super::ToyConfig;
use crate::{Error, Result};

/// Times are σ times this.
pub const LEVELS: f32 = 1000.0;

/// Keeps a variance from being 0.
const LEAST: f32 = 1e-12;

/// A picture of each word, and the deviation of pictures from it.
pub struct ToyModel {
    pictures: Embedding,
    spread: f32,
    side: usize,
}

impl ToyModel {
    /// Reads `pictures.weight` `[words, side · side · 3]` and `spread` `[1]`.
    ///
    /// # Errors
    /// Weights that do not fit the configuration.
    pub fn load(config: &ToyConfig, weights: &Weights) -> Result<Self> {
        let (words, values) = (config.words.len(), config.values());
        let pictures = Embedding::load(&weights.pp("pictures"), words, values, Init::Normal(0.5))?;
        let spread = weights.get("spread", &[1], Init::Zeros)?;
        weights.finish(&[])?;
        Ok(Self {
            pictures,
            spread: spread.to_vec1::<f32>()?.first().copied().unwrap_or(0.0),
            side: config.side,
        })
    }

    /// The pictures of words, `[words, side, side, 3]` in −1..1.
    ///
    /// # Errors
    /// An id that is no word's.
    pub fn pictures(&self, words: &[u32]) -> Result<Tensor> {
        let shape = (words.len(), self.side, self.side, 3);
        self.pictures.forward(words)?.reshape(shape)
    }

    /// Velocities of `x` `[B, side, side, 3]` at times `[B]` (above 0, up to 1000), towards `pictures` of the
    /// same shape as `x`.
    ///
    /// # Errors
    /// Tensors that do not fit together.
    pub fn forward(&self, x: &Tensor, times: &[f32], pictures: &Tensor) -> Result<Tensor> {
        if x.dims() != pictures.dims() || x.dim(0)? != times.len() {
            return Err(Error::Shape(format!(
                "{} times and samples {:?} for pictures {:?}",
                times.len(),
                x.dims(),
                pictures.dims()
            )));
        }
        let column = |of: &dyn Fn(f32) -> f32| {
            let values: Vec<f32> = times.iter().map(|time| of(time / LEVELS)).collect();
            Tensor::from_vec(values, (times.len(), 1, 1, 1))
        };
        let variance = self.spread * self.spread;
        let kept = column(&|sigma| 1.0 - sigma)?;
        let slope = column(&|sigma| {
            let kept = 1.0 - sigma;
            let of_x = sigma * sigma + kept * kept * variance;
            (sigma - kept * variance) / of_x.max(LEAST)
        })?;
        let noise = (x - pictures.broadcast_mul(&kept)?)?;
        noise.broadcast_mul(&slope)? - pictures
    }
}
