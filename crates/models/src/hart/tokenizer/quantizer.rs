//! Residual quantization over scales: each adds what the sum of those before lacks.

use brisk_nn::{Codebook, Conv2d, ConvOptions, DType, Tensor, Weights, ops};

use super::super::Scales;
use super::TokenizerConfig;
use crate::{Error, Result};

/// Tap by tap: small, and what is chosen next hangs on its last bits.
const PHI: ConvOptions = ConvOptions {
    exact: true,
    ..ConvOptions::SAME_3X3
};

/// The codebook and what smooths a scale's codewords once they are spread over the latent's grid.
#[derive(Debug)]
pub struct Quantizer {
    codebook: Codebook,
    width: usize,
    phis: Vec<Conv2d>,
    /// Where each of them stands between the first scale and the last.
    ticks: Vec<f64>,
    share: f64,
}

/// A latent in codes.
#[derive(Debug)]
pub struct Encoded {
    /// Codes of each scale, `[batch·side²]`, row by row of a grid.
    pub codes: Vec<Vec<u32>>,
    /// Sum of what all scales give, `[B,H,W,C]`.
    pub sum: Tensor,
    /// What the scales before the last leave, `[B,H,W,C]`.
    pub rest: Tensor,
}

/// What one scale adds.
#[derive(Debug)]
pub struct ScaleEncoded<'a> {
    /// What the scales before leave, on this one's grid, `[batch·side², C]`.
    pub wanted: &'a Tensor,
    /// The nearest codewords, `[batch·side²]`.
    pub codes: &'a [u32],
    /// Sum of what the scales up to this give, `[B,H,W,C]`.
    pub sum: &'a Tensor,
}

impl Quantizer {
    /// Reads `embedding` and the convolutions below `quant_resi`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(config: &TokenizerConfig, weights: &Weights) -> Result<Self> {
        let width = config.z_channels;
        let codebook = Codebook::load(&weights.pp("embedding"), config.vocab_size, width)?;
        let below = weights.pp("quant_resi");
        let count = config.phi_count();
        let phis = (0..count).map(|index| {
            let path = match config.share_quant_resi {
                0 => below.pp(index),
                1 => below.pp("qresi"),
                _ => below.pp("qresi_ls").pp(index),
            };
            Conv2d::load(&path, width, width, PHI)
        });
        Ok(Self {
            codebook,
            width,
            phis: phis.collect::<Result<_>>()?,
            ticks: ticks(count),
            share: config.phi_share().unwrap_or(0.0),
        })
    }

    /// The codebook.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// Codewords `[batch, side, side, C]` of the codes `[batch·side²]` of a scale.
    ///
    /// # Errors
    /// Codes of another number, or outside the codebook.
    pub fn codewords(&self, codes: &[u32], batch: usize, side: usize) -> Result<Tensor> {
        if codes.len() != batch * side * side {
            return Err(Error::Shape(format!(
                "{} codes for {batch} grids of {side}×{side}",
                codes.len()
            )));
        }
        let rows = self.codebook.lookup(codes)?;
        rows.reshape((batch, side, side, self.width))
    }

    /// What a scale's codewords, or mixtures of them, `[B,side,side,C]` add to the latent `[B,H,H,C]`: spread
    /// over its grid and smoothed by φ. The last scale's stay as they are.
    ///
    /// # Errors
    /// A scale that does not exist, or a grid of another size.
    pub fn spread(&self, scales: &Scales, scale: usize, codewords: &Tensor) -> Result<Tensor> {
        let (_, rows, columns, _) = codewords.dims4()?;
        let side = scales.sides().get(scale).copied().unwrap_or(0);
        if [rows, columns] != [side, side] {
            return Err(Error::Shape(format!(
                "codewords of {rows}×{columns} places for scale {scale} of sides {:?}",
                scales.sides()
            )));
        }
        if scales.is_last(scale) {
            return Ok(codewords.clone());
        }
        let spread = ops::resize_bicubic(codewords, [scales.side(); 2])?;
        let Some(phi) = nearest(&self.ticks, scales.progress(scale)) else {
            return Ok(spread);
        };
        let smooth = self.phis[phi].forward(&spread)?;
        (spread * (1.0 - self.share))? + (smooth * self.share)?
    }

    /// What the transformer reads for scale `scale`: the sum so far `[B,H,H,C]` on its grid
    /// `[B,side,side,C]`.
    ///
    /// # Errors
    /// A scale that does not exist.
    pub fn input(&self, scales: &Scales, scale: usize, sum: &Tensor) -> Result<Tensor> {
        let side = scales.sides().get(scale).copied().unwrap_or(0);
        ops::resize_area(sum, [side; 2])
    }

    /// Codes of a latent `[B,H,H,C]`: each scale takes the codewords nearest to what those before leave.
    ///
    /// # Errors
    /// A latent of another size than the last scale's, or one that is not finite.
    pub fn encode(&self, scales: &Scales, latent: &Tensor) -> Result<Encoded> {
        self.encode_with(scales, latent, &mut |_| Ok(()))
    }

    /// As [`Quantizer::encode`]; `see` gets the state after every scale. Gradients flow through sums to the
    /// codewords and φ, not through choices.
    ///
    /// # Errors
    /// As [`Quantizer::encode`], and what `see` gives.
    pub fn encode_with(
        &self,
        scales: &Scales,
        latent: &Tensor,
        see: &mut dyn FnMut(&ScaleEncoded) -> Result<()>,
    ) -> Result<Encoded> {
        let (batch, rows, columns, channels) = latent.dims4()?;
        let side = scales.side();
        if [rows, columns, channels] != [side, side, self.width] {
            return Err(Error::Shape(format!(
                "a latent of {rows}×{columns} places with {channels} channels; `patch_nums` {:?} give \
                 {side}×{side}, and codewords have {}",
                scales.sides(),
                self.width
            )));
        }
        let mut sum = Tensor::zeros(latent.dims(), DType::F32)?;
        let (mut rest, mut before) = (latent.clone(), latent.clone());
        let mut codes = Vec::with_capacity(scales.count());
        for (scale, side) in scales.sides().iter().copied().enumerate() {
            let wanted = ops::resize_area(&rest, [side; 2])?;
            let wanted = wanted.reshape((batch * side * side, self.width))?;
            let found = self.codebook.nearest(&wanted)?;
            let codewords = self.codewords(&found, batch, side)?;
            let added = self.spread(scales, scale, &codewords)?;
            sum = (sum + &added)?;
            see(&ScaleEncoded {
                wanted: &wanted,
                codes: &found,
                sum: &sum,
            })?;
            codes.push(found);
            before = rest.clone();
            rest = (rest - added)?;
        }
        Ok(Encoded {
            codes,
            sum,
            rest: before,
        })
    }

    /// The latent `[batch, H, H, C]` that codes of some or all scales stand for: all that they add.
    ///
    /// # Errors
    /// As [`Quantizer::codewords`].
    pub fn sum(&self, scales: &Scales, codes: &[Vec<u32>], batch: usize) -> Result<Tensor> {
        let side = scales.side();
        let mut sum = Tensor::zeros((batch, side, side, self.width), DType::F32)?;
        for (scale, (side, codes)) in scales.sides().iter().zip(codes).enumerate() {
            let codewords = self.codewords(codes, batch, *side)?;
            sum = (sum + self.spread(scales, scale, &codewords)?)?;
        }
        Ok(sum)
    }

    /// The sum after each scale but the last that codes stand for, on the next one's grid
    /// `[batch, side, side, C]`: what the transformer reads when it is taught.
    ///
    /// # Errors
    /// As [`Quantizer::codewords`].
    pub fn taught(&self, scales: &Scales, codes: &[Vec<u32>], batch: usize) -> Result<Vec<Tensor>> {
        let side = scales.side();
        let mut sum = Tensor::zeros((batch, side, side, self.width), DType::F32)?;
        let before_last = scales.sides().iter().zip(codes).take(scales.count() - 1);
        let mut inputs = Vec::with_capacity(scales.count() - 1);
        for (scale, (side, codes)) in before_last.enumerate() {
            let codewords = self.codewords(codes, batch, *side)?;
            sum = (sum + self.spread(scales, scale, &codewords)?)?;
            inputs.push(self.input(scales, scale + 1, &sum)?);
        }
        Ok(inputs)
    }
}

/// Places of `count` convolutions along the scales, in f64 as the reference computes them.
fn ticks(count: usize) -> Vec<f64> {
    let margin = match count {
        4 => 1.0 / 3.0 / 4.0,
        _ => 1.0 / 2.0 / count as f64,
    };
    let last = 1.0 - margin;
    let step = (last - margin) / count.saturating_sub(1) as f64;
    let place = |index: usize| match index + 1 == count && count > 1 {
        true => last,
        false => index as f64 * step + margin,
    };
    (0..count)
        .map(|index| if count == 1 { margin } else { place(index) })
        .collect()
}

/// The first of those nearest to `place`.
fn nearest(ticks: &[f64], place: f64) -> Option<usize> {
    let distances = ticks.iter().map(|tick| (tick - place).abs()).enumerate();
    let best = distances.reduce(|best, next| if next.1 < best.1 { next } else { best });
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(phis: usize, scales: usize) -> Vec<usize> {
        let ticks = ticks(phis);
        let progress = (0..scales).map(|scale| scale as f64 / (scales - 1) as f64);
        progress.map(|at| nearest(&ticks, at).unwrap()).collect()
    }

    /// As the reference picks them (the middle of an odd number of scales lies between two).
    #[test]
    fn scales_share_convolutions_as_published() {
        assert_eq!(map(4, 14), [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]);
        assert_eq!(map(4, 10), [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(map(4, 5), [0, 1, 2, 2, 3]);
        assert_eq!(map(1, 4), [0; 4]);
        assert_eq!(map(3, 3), [0, 1, 2]);
        assert_eq!(nearest(&[], 0.5), None);
    }
}
