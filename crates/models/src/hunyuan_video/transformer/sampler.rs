//! The loop from noise to a clip's latent.

use brisk_nn::{DType, Tensor, Trace};

use super::{ImageCondition, VideoConditioning, VideoTransformer};
use crate::{Error, Result};

/// Times of the network per σ.
const TIMES: f32 = 1000.0;

/// Noise levels from 1 to 0, one more than there are steps: u·s/(1 + (s − 1)·u) for evenly spaced u and shift s.
pub fn video_sigmas(steps: usize, shift: f64) -> Vec<f32> {
    let level = |index: usize| {
        let u = 1.0 - index as f64 / steps as f64;
        (shift * u / (1.0 + (shift - 1.0) * u)) as f32
    };
    (0..=steps).map(level).collect()
}

/// A clip on its way from noise, Euler step by step.
pub struct VideoSampler<'a> {
    model: &'a VideoTransformer,
    by: &'a VideoConditioning,
    /// What it is led away from, and the strength.
    against: Option<(&'a VideoConditioning, f32)>,
    /// Latents of the given frames `[1,G,h,w,C]`, in the scale that the transformer sees.
    given: Option<&'a Tensor>,
    sigmas: Vec<f32>,
}

impl<'a> VideoSampler<'a> {
    /// A walk along `sigmas`, at least two that fall. `given` are latents `[1,G,h,w,C]` of the frames that a model
    /// which is shown some is given; `against` is what guidance leads away from, with its strength w: the velocity is
    /// v₋ + w·(v − v₋).
    ///
    /// # Errors
    /// Frames for a model of texts alone or none for one that is shown some, several where one takes the noise's
    /// place, or levels that do not fall.
    pub fn new(
        model: &'a VideoTransformer,
        by: &'a VideoConditioning,
        against: Option<(&'a VideoConditioning, f32)>,
        given: Option<&'a Tensor>,
        sigmas: Vec<f32>,
    ) -> Result<Self> {
        let fail = |message: &str| Err(Error::Shape(message.to_owned()));
        if sigmas.len() < 2 || sigmas.windows(2).any(|pair| pair[0] <= pair[1]) {
            return fail("noise levels must fall from step to step, and there must be one");
        }
        match (model.config().image_condition_type, given) {
            (None, Some(_)) => {
                return fail("the model draws from texts alone, and a first frame was given");
            }
            (Some(_), None) => return fail("the model needs a first frame, and none was given"),
            (Some(ImageCondition::TokenReplace), Some(given)) if given.dim(1)? != 1 => {
                return fail("one given frame takes the place of noise, and several were given");
            }
            _ => {}
        }
        Ok(Self {
            model,
            by,
            against,
            given,
            sigmas,
        })
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// Takes latents `[1,F,h,w,C]` from level `index` to the next.
    ///
    /// # Errors
    /// As [`VideoTransformer::forward`], no such step, or given frames of another size.
    pub fn step(&self, index: usize, latents: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (Some(now), Some(next)) = (self.sigmas.get(index), self.sigmas.get(index + 1)) else {
            return Err(Error::Shape(format!("no step {index} of {}", self.steps())));
        };
        let seen = self.seen(latents)?;
        let time = now * TIMES;
        let mut velocity = self.model.forward(&seen, time, self.by, trace)?;
        if let Some((against, strength)) = self.against {
            let other = self.model.forward(&seen, time, against, trace)?;
            let difference = (velocity - &other)?.affine(f64::from(strength), 0.0)?;
            velocity = (other + difference)?;
        }
        let moved = (latents + velocity.affine(f64::from(next - now), 0.0)?)?;
        match self.replaced() {
            Some(given) => with_first(given, &moved),
            None => Ok(moved),
        }
    }

    /// What stands in place of the first frame's noise.
    fn replaced(&self) -> Option<&Tensor> {
        let replaces =
            self.model.config().image_condition_type == Some(ImageCondition::TokenReplace);
        self.given.filter(|_| replaces)
    }

    /// Latents as the network sees them: with the given frames.
    fn seen(&self, latents: &Tensor) -> Result<Tensor> {
        if let Some(given) = self.replaced() {
            return with_first(given, latents);
        }
        let Some(given) = self.given else {
            return Ok(latents.clone());
        };
        beside(latents, given)
    }
}

/// Latents `[B,F,h,w,C]` with those of the first frames, `[B,G,h,w,C]`, beside them and a mask of these frames:
/// `[B,F,h,w,2·C + 1]`, as a model sees them that is shown the first frame so.
///
/// # Errors
/// Given frames of another size, or more than there are.
pub fn beside(latents: &Tensor, given: &Tensor) -> Result<Tensor> {
    let (&[batch, frames, height, width, channels], &[_, some, ..]) =
        (latents.dims(), given.dims())
    else {
        return Err(Error::Shape(format!(
            "latents {:?} with given frames {:?}",
            latents.dims(),
            given.dims()
        )));
    };
    if some > frames || given.dims() != [batch, some, height, width, channels] {
        return Err(Error::Shape(format!(
            "given frames {:?} for latents {:?}; expected as many values a frame, and no more frames",
            given.dims(),
            latents.dims()
        )));
    }
    let ones = Tensor::ones(vec![batch, some, height, width, 1], DType::F32)?;
    let given = Tensor::cat(&[given.clone(), ones], 4)?.pad_with_zeros(1, 0, frames - some)?;
    Tensor::cat(&[latents.clone(), given], 4)
}

/// A clip with another first frame.
fn with_first(first: &Tensor, clip: &Tensor) -> Result<Tensor> {
    match clip.dim(1)? {
        1 => Ok(first.clone()),
        frames => Tensor::cat(&[first.clone(), clip.narrow(1, 1, frames - 1)?], 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published grids of 4 and 8 steps, shift 5.
    #[test]
    fn grids_are_the_published_ones() {
        for (steps, wanted) in [
            (4, &[1.0, 0.9375, 0.833333, 0.625, 0.0][..]),
            (
                8,
                &[
                    1.0, 0.972222, 0.9375, 0.892857, 0.833333, 0.75, 0.625, 0.416667, 0.0,
                ][..],
            ),
        ] {
            let found = video_sigmas(steps, 5.0);
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
            }
        }
    }
}
