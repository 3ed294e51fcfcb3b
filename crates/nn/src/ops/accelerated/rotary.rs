//! Rotary position embedding.

use candle_core::{Device, Result, Tensor};

use super::Statement;

/// [`crate::ops::rotary_at`]: the values, whose angles are these.
pub(in crate::ops) struct Rotary {
    pub heads: usize,
    /// Sine and cosine, as many pairs a token as channels turn by twos.
    pub firsts: Vec<(f32, f32)>,
    /// Those that turn the second of two.
    pub seconds: Vec<(f32, f32)>,
    /// Pairs a token.
    pub half: usize,
    /// Whether the two of a pair are neighbours, not half the channels apart.
    pub neighbours: bool,
}

impl Rotary {
    /// Sines and cosines `[tokens, 1, half]`.
    fn tables(&self, pairs: &[(f32, f32)], device: &Device) -> Result<[Tensor; 2]> {
        let shape = (pairs.len() / self.half.max(1), 1, self.half);
        let (sines, cosines): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
        Ok([
            Tensor::from_vec(sines, shape, device)?,
            Tensor::from_vec(cosines, shape, device)?,
        ])
    }
}

impl Statement for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn forward(&self, operands: &[Tensor]) -> Result<Tensor> {
        let x = &operands[0];
        let (batch, tokens, width) = x.dims3()?;
        let (dim, half) = (width / self.heads, self.half);
        if half == 0 {
            return Ok(x.clone());
        }
        let heads = x.reshape((batch, tokens, self.heads, dim))?;
        let (turning, rest) = (heads.narrow(3, 0, 2 * half)?, dim - 2 * half);
        let [first, second] = match self.neighbours {
            false => [turning.narrow(3, 0, half)?, turning.narrow(3, half, half)?],
            true => {
                let pairs = turning
                    .contiguous()?
                    .reshape((batch, tokens, self.heads, half, 2))?;
                [0, 1]
                    .map(|at| pairs.narrow(4, at, 1).and_then(|x| x.squeeze(4)))
                    .into_iter()
                    .collect::<Result<Vec<_>>>()?
                    .try_into()
                    .map_err(|_| candle_core::Error::Msg("rotary: two of a pair".to_owned()))?
            }
        };
        let [first_sines, first_cosines] = self.tables(&self.firsts, x.device())?;
        let [second_sines, second_cosines] = self.tables(&self.seconds, x.device())?;
        let turned_first =
            (first.broadcast_mul(&first_cosines)? - second.broadcast_mul(&first_sines)?)?;
        let turned_second =
            (second.broadcast_mul(&second_cosines)? + first.broadcast_mul(&second_sines)?)?;
        let turned = match self.neighbours {
            false => Tensor::cat(&[&turned_first, &turned_second], 3)?,
            true => Tensor::stack(&[&turned_first, &turned_second], 4)?.reshape((
                batch,
                tokens,
                self.heads,
                2 * half,
            ))?,
        };
        let turned = match rest {
            0 => turned,
            _ => Tensor::cat(&[&turned, &heads.narrow(3, 2 * half, rest)?], 3)?,
        };
        turned.reshape(x.shape())
    }
}
