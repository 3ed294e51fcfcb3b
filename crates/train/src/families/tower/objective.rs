//! What an update minimises.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use brisk_nn::{Tensor, Trace};

use super::networks::Networks;
use crate::error::Result;
use crate::loss::{self, Loss, ReconstructionLoss};
use crate::tensors;
use crate::terms::Terms;

/// What is minimised.
pub(super) struct Weighing<'a> {
    pub pictures: &'a ReconstructionLoss,
    pub contrastive: f64,
    pub commitment: f64,
    /// Whether gradients reach the text encoder.
    pub texts_learn: bool,
    /// Whether places are quantized and decoded.
    pub quantizes: bool,
}

/// An update's samples.
pub(super) struct Batch<'a> {
    /// Pictures, one after another, in −1..1.
    pub values: &'a [f32],
    /// Pixels of a side.
    pub size: usize,
    /// Ids of the captions, all of one length.
    pub captions: &'a [Vec<u32>],
    pub weighing: Weighing<'a>,
    pub seen: Seen,
}

/// What each depth saw, of every part of the batch by its first sample.
#[derive(Default)]
pub(super) struct Seen(Mutex<Vec<(usize, Vec<Depth>)>>);

/// Vectors of a depth and the codes that they took.
#[derive(Default)]
pub(super) struct Depth {
    pub vectors: Vec<f32>,
    pub codes: Vec<u32>,
}

impl Seen {
    fn add(&self, start: usize, depths: Vec<Depth>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((start, depths));
    }

    /// Depth by depth, in the order of the samples whoever was done first.
    pub fn depths(self) -> Vec<Depth> {
        let mut parts = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.sort_by_key(|(start, _)| *start);
        let mut joined: Vec<Depth> = Vec::new();
        for (_, depths) in parts {
            joined.resize_with(depths.len(), Depth::default);
            for (joined, depth) in joined.iter_mut().zip(depths) {
                joined.vectors.extend(depth.vectors);
                joined.codes.extend(depth.codes);
            }
        }
        joined
    }
}

impl Batch<'_> {
    /// The mean loss of some samples, and what it is made of. Captions are compared with the pictures of the same
    /// samples alone.
    pub fn loss(&self, networks: &Networks, samples: Range<usize>) -> Result<(Loss, Terms)> {
        let (count, each) = (samples.len(), self.size * self.size * 3);
        let values = &self.values[samples.start * each..samples.end * each];
        let pictures = Tensor::from_slice(values, (count, self.size, self.size, 3))?;
        let vectors = networks.tower.vectors(&pictures, &mut Trace::none())?;
        if !self.weighing.quantizes {
            let contrast = self.contrast(networks, &vectors, samples)?;
            let terms = vec![("contrastive_loss", contrast.value)];
            return Ok((contrast, terms));
        }
        let (sum, commitment) = self.quantized(networks, &vectors, samples.start)?;
        // Straight through: what follows sees the sum, the gradient goes to the vectors.
        let through = (&vectors + (sum - &vectors)?.detach())?;
        let decoded = networks
            .tower
            .decode(&networks.tower.maps(&through)?, &mut Trace::none())?;
        let drawn = loss::reconstruction(&decoded, values, self.weighing.pictures)?;
        let mut terms = vec![
            ("reconstruction_loss", drawn.value),
            ("commitment_loss", f64::from(commitment.to_scalar::<f32>()?)),
        ];
        let mut loss = drawn.plus(&commitment, self.weighing.commitment)?;
        if self.weighing.contrastive > 0.0 {
            let contrast = self.contrast(networks, &through, samples)?;
            terms.push(("contrastive_loss", contrast.value));
            loss = loss.and(contrast, self.weighing.contrastive)?;
        }
        Ok((loss, terms))
    }

    /// Sums of codewords of vectors `[places, C]`, and the mean distance of the vectors from the sums up to each
    /// depth, with its gradient to the vectors.
    fn quantized(
        &self,
        networks: &Networks,
        vectors: &Tensor,
        start: usize,
    ) -> Result<(Tensor, Tensor)> {
        let quantizer = networks.tower.quantizer();
        let mut depths = Vec::with_capacity(quantizer.depth());
        let mut distance: Option<Tensor> = None;
        let encoded = quantizer.encode_with(&vectors.detach(), &mut |at| {
            depths.push(Depth {
                vectors: at.wanted.detach().flatten_all()?.to_vec1()?,
                codes: at.codes.to_vec(),
            });
            let from_sum = (vectors - at.sum.detach())?.sqr()?.mean_all()?;
            distance = Some(match distance.take() {
                Some(before) => (before + from_sum)?,
                None => from_sum,
            });
            Ok(())
        })?;
        self.seen.add(start, depths);
        let distance = match distance {
            Some(sum) => (sum * (1.0 / quantizer.depth() as f64))?,
            None => Tensor::new(0f32)?,
        };
        Ok((encoded.sum.detach(), distance))
    }

    fn contrast(
        &self,
        networks: &Networks,
        places: &Tensor,
        samples: Range<usize>,
    ) -> Result<Loss> {
        let captions = &self.captions[samples];
        let contrast = &networks.contrast;
        let pictures = contrast.pictures(&by_picture(places, captions.len())?)?;
        let mut texts = contrast.texts(&captions.concat())?;
        if !self.weighing.texts_learn {
            texts = texts.detach();
        }
        sigmoid_loss(&contrast.logits(&pictures, &texts)?, captions)
    }
}

/// Places of all pictures `[B·P, C]` as `[B, P, C]`.
pub(super) fn by_picture(places: &Tensor, count: usize) -> Result<Tensor> {
    let (all, width) = places.dims2()?;
    Ok(places.reshape((count, all / count.max(1), width))?)
}

/// SigLIP's loss of logits `[n,n]`: of every picture with every caption, whether they belong together; the sum over
/// the captions, as a mean over the pictures. A caption that says the same belongs there too.
fn sigmoid_loss(logits: &Tensor, captions: &[Vec<u32>]) -> Result<Loss> {
    let mut values = tensors::values(logits)?;
    let count = captions.len();
    let mut sum = 0f64;
    for (row, own) in values.chunks_exact_mut(count).zip(captions) {
        for (value, caption) in row.iter_mut().zip(captions) {
            let sign = if caption == own { 1.0 } else { -1.0 };
            let x = -sign * f64::from(*value);
            // softplus, and its slope.
            sum += x.max(0.0) + (-x.abs()).exp().ln_1p();
            *value = (-sign / (1.0 + (-x).exp()) / count as f64) as f32;
        }
    }
    loss::with_gradient(logits, sum / count as f64, values)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn captions_that_say_the_same_belong_together_and_gradients_are_slopes() {
        let captions = [vec![1, 2], vec![3, 4], vec![1, 2]];
        let start = Rng::new(5).normals(9);
        let at = |values: &[f32]| {
            let logits = Var::from_vec(values.to_vec(), (3, 3), &Device::Cpu).unwrap();
            let loss = sigmoid_loss(&logits.as_tensor().into(), &captions).unwrap();
            let store = loss.surrogate.backward().unwrap();
            let gradient = store.get(logits.as_tensor()).unwrap();
            (loss.value, tensors::values(&gradient.into()).unwrap())
        };
        let (value, gradient) = at(&start);
        let positive = [0, 2, 4, 6, 8];
        let plain: f64 = (0..9)
            .map(|index| {
                let x = f64::from(start[index]);
                let x = if positive.contains(&index) { -x } else { x };
                x.exp().ln_1p() / 3.0
            })
            .sum();
        assert!((value - plain).abs() < 1e-6);
        for index in 0..9 {
            let shifted = |by: f32| {
                let mut values = start.clone();
                values[index] += by;
                at(&values).0
            };
            let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[index])).abs() < 1e-3, "{index}");
            assert_eq!(gradient[index] < 0.0, positive.contains(&index));
        }
    }

    #[test]
    fn what_depths_saw_is_in_the_order_of_the_samples() {
        let seen = Seen::default();
        let depth = |value: f32, code: u32| Depth {
            vectors: vec![value],
            codes: vec![code],
        };
        seen.add(2, vec![depth(3.0, 3), depth(4.0, 4)]);
        seen.add(0, vec![depth(1.0, 1), depth(2.0, 2)]);
        let depths = seen.depths();
        assert_eq!(depths[0].vectors, [1.0, 3.0]);
        assert_eq!(depths[1].codes, [2, 4]);
    }
}
