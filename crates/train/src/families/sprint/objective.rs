//! The losses of one update, of some of its samples.

use brisk_nn::{Tensor, Trace};

use super::draws::{DiscriminatorDraws, Draw, StudentDraws};
use super::networks::Networks;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::objectives::adversarial::{generator_loss, hinge_loss};
use crate::objectives::ladd::{self, Discriminator, Normalised};
use crate::objectives::{Angles, FlowNetwork, ScmPoint, TrigFlow, clean, noised, scm_loss};
use crate::terms::Terms;

/// Some samples of a batch: scaled latents `[B,h,w,C]`, which are in units of σ_d, and their captions.
pub(super) struct Samples<M: FlowNetwork> {
    pub latents: Tensor,
    /// As the student takes them, with gradients.
    pub student: M::Caption,
    /// As the teacher takes them.
    pub teacher: M::Caption,
}

/// Weights of the parts of the student's loss.
#[derive(Debug, Clone, Copy)]
pub(super) struct LossWeights {
    pub consistency: f64,
    pub adversarial: f64,
    /// Share of the tangent's second term.
    pub tangent: f64,
}

impl<M: FlowNetwork> Samples<M> {
    fn sides(&self) -> Result<[usize; 3]> {
        let (_, height, width, channels) = self.latents.dims4()?;
        Ok([height, width, channels])
    }

    fn noised(&self, draw: &Draw) -> Result<Tensor> {
        noised(&self.latents, &draw.noise(self.sides()?)?, &draw.angles)
    }
}

impl<M: FlowNetwork> Networks<M> {
    fn discriminator(&self) -> Result<&Discriminator> {
        let missing = || Error::Recipe("adversarial_weight is 0: there is no discriminator".into());
        self.discriminator.as_ref().ok_or_else(missing)
    }

    /// The student's loss. `empty` is the teacher's caption of nothing, once a sample; `normalised` the step of power
    /// iteration that the discriminator's pass begins with, where it counts.
    pub fn student_loss(
        &self,
        samples: &Samples<M>,
        empty: &M::Caption,
        draws: &StudentDraws,
        normalised: Option<&Normalised>,
        weights: LossWeights,
    ) -> Result<(Loss, Terms)> {
        let (student, teacher) = (TrigFlow(&self.student), TrigFlow(&self.teacher));
        let noise = draws.points.noise(samples.sides()?)?;
        let angles = &draws.points.angles;
        let point = ScmPoint::new(&samples.latents, &noise, angles, &draws.guidance)?;
        let (predicted, log_variance) =
            self.variance
                .predict(student, &point.x, angles, &draws.guidance, &samples.student)?;
        let mut terms = Terms::new();
        let mut total = None;
        if weights.consistency > 0.0 {
            let velocity = point.velocity(teacher, &samples.teacher, empty)?;
            let rate = point.student_rate(student, &samples.student, &velocity)?;
            let held = predicted.detach();
            let mut tangent = point.tangent(&held, &velocity, &rate, weights.tangent)?;
            terms.push(("tangent_norm", point.normalise(&mut tangent)));
            let loss = scm_loss(&predicted, &log_variance, &tangent, angles)?;
            terms.push(("consistency_loss", loss.value));
            total = Some(loss.scaled(weights.consistency)?);
        }
        if let Some(normalised) = normalised {
            let drawn = match &draws.drawn {
                Some(draw) => {
                    let x = samples.noised(draw)?;
                    let predicted = student.predict(
                        &x,
                        &Angles::fixed(&draw.angles),
                        Some(&draws.guidance),
                        &samples.student,
                        &mut Trace::none(),
                    )?;
                    clean(&x, &predicted, &draw.angles)?
                }
                None => clean(&point.x, &predicted, angles)?,
            };
            let seen = noised(
                &drawn,
                &draws.seen.noise(samples.sides()?)?,
                &draws.seen.angles,
            )?;
            let captions = &samples.teacher;
            let logits = self.logits(&seen, &draws.seen.angles, captions, normalised, false)?;
            let loss = Loss::of(&generator_loss(&logits)?)?;
            terms.push(("adversarial_loss", loss.value));
            total = Some(match total {
                Some(total) => total.and(loss, weights.adversarial)?,
                None => loss.scaled(weights.adversarial)?,
            });
        }
        let nothing = || Error::Recipe("the student's losses have no weight".into());
        Ok((total.ok_or_else(nothing)?, terms))
    }

    /// The discriminator's loss. `neighbours` are the latents of the sample before each, of another caption;
    /// `normalised` the steps of power iteration of its two passes: the fake ones, then the real ones.
    pub fn discriminator_loss(
        &self,
        samples: &Samples<M>,
        neighbours: &Tensor,
        draws: &DiscriminatorDraws,
        normalised: [&Normalised; 2],
    ) -> Result<(Loss, Terms)> {
        let x = samples.noised(&draws.drawn)?;
        let predicted = TrigFlow(&self.student).predict(
            &x,
            &Angles::fixed(&draws.drawn.angles),
            Some(&draws.guidance),
            &samples.student,
            &mut Trace::none(),
        )?;
        let drawn = clean(&x, &predicted.detach(), &draws.drawn.angles)?;
        let sides = samples.sides()?;
        let mut seen = vec![noised(
            &drawn,
            &draws.fake.noise(sides)?,
            &draws.fake.angles,
        )?];
        let mut angles = draws.fake.angles.clone();
        let mut captions = vec![&samples.teacher];
        if let Some(draw) = &draws.misaligned {
            seen.push(noised(neighbours, &draw.noise(sides)?, &draw.angles)?);
            angles.extend(&draw.angles);
            captions.push(&samples.teacher);
        }
        let seen = Tensor::cat(&seen, 0)?.detach();
        let captions = M::join(&captions)?;
        let fake = self.logits(&seen, &angles, &captions, normalised[0], true)?;
        let real = Draw {
            angles: draws.fake.angles.clone(),
            noise: draws.real.clone(),
        };
        let seen = samples.noised(&real)?;
        let real = self.logits(&seen, &real.angles, &samples.teacher, normalised[1], true)?;
        let loss = Loss::of(&hinge_loss(&real, &fake)?)?;
        let terms = vec![("discriminator_loss", loss.value)];
        Ok((loss, terms))
    }

    fn logits(
        &self,
        x: &Tensor,
        angles: &[f64],
        captions: &M::Caption,
        normalised: &Normalised,
        learns: bool,
    ) -> Result<Tensor> {
        let teacher = TrigFlow(&self.teacher);
        let tokens = ladd::features(teacher, &self.head_blocks, x, angles, captions)?;
        self.discriminator()?.logits(&tokens, normalised, learns)
    }
}
