//! What an update minimises: focal loss and Dice loss of masks in the pixels of the frame, and the error of the quality
//! that is expected of them, weighted as by the authors (arXiv 2304.02643, appendix A).

use brisk_models::sam::{ImageEncoder, MaskDecoder, SamConfig};
use brisk_nn::{Tensor, Trace, Weights};

use super::enlarged::Enlarged;
use super::sample::{Group, Sample};
use crate::error::{Error, Result};
use crate::loss::{Loss, with_gradient};
use crate::tensors;

const FOCAL: f64 = 20.0;
/// Weight of pixels inside, of 1. The same as that of those outside: most of a stroke is near its border, and would
/// become thinner otherwise.
const ALPHA: f64 = 0.5;

/// The networks, from variables as they stand now.
pub(super) struct Networks {
    encoder: ImageEncoder,
    decoder: MaskDecoder,
}

impl Networks {
    pub fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        Ok(Self {
            encoder: ImageEncoder::load(config, weights)?,
            decoder: MaskDecoder::load(config, weights)?,
        })
    }

    /// The mean loss of samples' prompts, for a frame of this side.
    pub fn loss(&self, samples: &[Sample], side: usize) -> Result<Loss> {
        let pixels: Vec<&Tensor> = samples.iter().map(|sample| &sample.pixels).collect();
        let embeddings = self
            .encoder
            .forward(&Tensor::cat(&pixels, 0)?, &mut Trace::none())?;
        let count: usize = samples.iter().map(Sample::prompts).sum();
        let mut sum: Option<Loss> = None;
        for (index, sample) in samples.iter().enumerate() {
            let embedding = embeddings.narrow(0, index, 1)?.contiguous()?;
            let picture = self.decoder.prepare(&embedding)?;
            for group in &sample.groups {
                let decoded = self
                    .decoder
                    .decode(&picture, &group.prompts, &mut Trace::none())?;
                let loss = of_group(&decoded.masks, &decoded.qualities, group, count, side)?;
                sum = Some(match sum {
                    Some(before) => Loss {
                        value: before.value + loss.value,
                        surrogate: (before.surrogate + loss.surrogate)?,
                    },
                    None => loss,
                });
            }
        }
        sum.ok_or_else(|| Error::Data("a batch without any prompt".to_owned()))
    }
}

/// The loss of a group's masks `[P, M, h, w]` and qualities `[P, M]` as a part of the mean over `count` prompts.
fn of_group(
    masks: &Tensor,
    qualities: &Tensor,
    group: &Group,
    count: usize,
    side: usize,
) -> Result<Loss> {
    let (prompts, each, height, width) = masks.dims4()?;
    let enlarged = Enlarged::new([width, height], side);
    let area = height * width;
    let (logits, expected) = (tensors::values(masks)?, tensors::values(qualities)?);
    let mut of_masks = vec![0.0f32; logits.len()];
    let mut of_qualities = vec![0.0f32; expected.len()];
    let share = 1.0 / count.max(1) as f64;
    let mut value = 0.0;
    for (prompt, target) in group.targets.iter().enumerate().take(prompts) {
        let candidates = if group.several && each > 1 {
            1..each
        } else {
            0..1
        };
        let scored = candidates.map(|mask| {
            let at = (prompt * each + mask) * area;
            let fine = enlarged.values(&logits[at..at + area]);
            let (loss, gradient, overlap) = of_mask(&fine, target);
            (mask, loss, gradient, overlap)
        });
        let scored: Vec<_> = scored.collect();
        // The quality of every candidate is learnt, the pixels of the best alone.
        for (mask, _, _, overlap) in &scored {
            let at = prompt * each + mask;
            let off = f64::from(expected[at]) - overlap;
            value += share * off * off / scored.len() as f64;
            of_qualities[at] = (2.0 * off * share / scored.len() as f64) as f32;
        }
        let best = scored.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((mask, loss, gradient, _)) = best {
            value += share * loss;
            let at = (prompt * each + mask) * area;
            let coarse = enlarged.gradient(&gradient);
            for (into, from) in of_masks[at..at + area].iter_mut().zip(coarse) {
                *into = from * share as f32;
            }
        }
    }
    let masks = with_gradient(masks, value, of_masks)?;
    let qualities = with_gradient(qualities, 0.0, of_qualities)?;
    Ok(Loss {
        value,
        surrogate: (masks.surrogate + qualities.surrogate)?,
    })
}

/// Focal and Dice loss of a mask's logits, their gradient, and the intersection over union of what lies above zero.
fn of_mask(logits: &[f32], target: &[bool]) -> (f64, Vec<f32>, f64) {
    let area = logits.len() as f64;
    let (mut focal, mut both, mut sum) = (0.0, 0.0, 0.0);
    let (mut common, mut either) = (0usize, 0usize);
    let mut gradient = Vec::with_capacity(logits.len());
    let mut shares = Vec::with_capacity(logits.len());
    for (logit, inside) in logits.iter().zip(target) {
        let x = f64::from(*logit);
        // p, 1 − p and their logarithms, exact also where one is nearly 0.
        let e = (-x.abs()).exp();
        let (more, less) = (1.0 / (1.0 + e), e / (1.0 + e));
        let (p, q) = if x >= 0.0 { (more, less) } else { (less, more) };
        let log = e.ln_1p();
        let (ln_p, ln_q) = (x.min(0.0) - log, -x.max(0.0) - log);
        let (loss, slope) = match inside {
            true => (-ALPHA * q * q * ln_p, ALPHA * q * q * (2.0 * p * ln_p - q)),
            false => (
                -(1.0 - ALPHA) * p * p * ln_q,
                (1.0 - ALPHA) * p * p * (p - 2.0 * q * ln_q),
            ),
        };
        focal += loss / area;
        gradient.push((FOCAL * slope / area) as f32);
        let wanted = f64::from(u8::from(*inside));
        both += p * wanted;
        sum += p + wanted;
        common += usize::from(*inside && x > 0.0);
        either += usize::from(*inside || x > 0.0);
        shares.push(p);
    }
    let (above, below) = (2.0 * both + 1.0, sum + 1.0);
    for ((gradient, p), inside) in gradient.iter_mut().zip(&shares).zip(target) {
        let wanted = f64::from(u8::from(*inside));
        *gradient += ((above - 2.0 * wanted * below) / (below * below) * p * (1.0 - p)) as f32;
    }
    let overlap = common as f64 / either.max(1) as f64;
    (FOCAL * focal + 1.0 - above / below, gradient, overlap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_losses_slope() {
        let logits: Vec<f32> = (0..24).map(|at| (at as f32 * 0.71).sin() * 6.0).collect();
        let target: Vec<bool> = (0..24).map(|at| at % 3 == 0).collect();
        let (_, gradient, overlap) = of_mask(&logits, &target);
        assert!((0.0..=1.0).contains(&overlap));
        for at in 0..logits.len() {
            let moved = |by: f32| {
                let mut logits = logits.clone();
                logits[at] += by;
                of_mask(&logits, &target).0
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(gradient[at])).abs() < 1e-4 * (1.0 + slope.abs()),
                "{slope} {}",
                gradient[at]
            );
        }
    }

    #[test]
    fn right_masks_cost_nothing() {
        let target = [true, false, true, false];
        let logits = target.map(|inside| if inside { 30.0 } else { -30.0 });
        let (loss, _, overlap) = of_mask(&logits, &target);
        assert!(loss < 1e-6 && overlap == 1.0, "{loss} {overlap}");
        assert!(of_mask(&logits.map(|x| -x), &target).0 > 10.0);
    }
}
