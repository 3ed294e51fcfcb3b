//! The losses of one update, of some of its samples.

use std::ops::Range;

use brisk_models::hunyuan_video::transformer::{VideoConditioning, VideoTransformer, video_sigmas};
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::families::hunyuan_video::picture::beginning;

use super::DmdRecipe;
use super::draws::Draw;
use super::networks::Networks;
use crate::error::{Error, Result};
use crate::families::video::flow::TIMES;
use crate::families::video::pool::{Pool, PooledClip};
use crate::loss::{self, Loss};
use crate::objectives::dmd;
use crate::objectives::ladd::{Discriminator, Normalised};
use crate::tensors;
use crate::terms::Terms;

/// What samples are made of and led by.
pub(super) struct Led<'a> {
    pub recipe: &'a DmdRecipe,
    pub pool: &'a Pool,
    /// Of each clip of the pool.
    pub by: &'a [VideoConditioning],
    /// What guidance leads away from.
    pub against: &'a VideoConditioning,
}

/// Heads with the step of power iteration that a pass begins with.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub discriminator: &'a Discriminator,
    pub normalised: &'a Normalised,
}

/// A clip on its way.
struct Sample<'a> {
    led: &'a Led<'a>,
    draw: &'a Draw,
    clip: &'a PooledClip,
    by: &'a VideoConditioning,
}

impl Led<'_> {
    fn sample<'a>(&'a self, draw: &'a Draw) -> Sample<'a> {
        Sample {
            led: self,
            draw,
            clip: &self.pool.clips[draw.clip],
            by: &self.by[draw.clip],
        }
    }

    /// The student's loss while it learns the guided velocity.
    pub fn guidance_loss(
        &self,
        networks: &Networks,
        draws: &[Draw],
        part: Range<usize>,
    ) -> Result<(Loss, Terms)> {
        let (student, real) = (networks.student()?, networks.real()?);
        mean(&draws[part], |draw| {
            let sample = self.sample(draw);
            let x = dmd::noised(&sample.clip.latent, &draw.noise, draw.level);
            let wanted = sample.guided(&real, &x)?;
            let predicted = sample.velocity(&student, &self.pool.latent(&x)?, draw.level)?;
            let loss = loss::mean_square(&predicted, &wanted)?;
            let terms = vec![("guidance_loss", loss.value)];
            Ok((loss, terms))
        })
    }

    /// The student's loss.
    pub fn student_loss(
        &self,
        networks: &Networks,
        heads: Option<Heads>,
        draws: &[Draw],
        part: Range<usize>,
    ) -> Result<(Loss, Terms)> {
        let student = networks.student()?;
        let (real, fake) = (networks.real()?, networks.fake()?);
        mean(&draws[part], |draw| {
            let sample = self.sample(draw);
            let (level, noise) = (draw.level, &draw.noise);
            let drawn = sample.drawn(&student)?;
            let y = tensors::values(&drawn)?;
            let x = dmd::noised(&y, noise, level);
            let clean_of = |velocity: &[f32]| dmd::clean(&x, velocity, level);
            let of_real = clean_of(&sample.guided(&real, &x)?);
            let held = self.pool.latent(&x)?;
            let of_fake = sample.velocity(&fake, &held, level)?;
            let of_fake = clean_of(&tensors::values(&of_fake)?);
            let direction = dmd::direction(&y, &of_real, &of_fake);
            let mut loss = dmd::matching_loss(&drawn, &direction)?;
            let mut terms = vec![("matching_loss", loss.value)];
            if let Some(heads) = heads {
                let noise = self.pool.latent(noise)?;
                let (kept, added) = (f64::from(1.0 - level), f64::from(level));
                let x = (drawn.affine(kept, 0.0)? + noise.affine(added, 0.0)?)?;
                let (_, tokens) = sample.tokens(&fake, &x, level)?;
                let logits = heads.logits(&tokens, false)?;
                let adversarial = dmd::softplus_loss(&logits, -1.0)?;
                terms.push(("adversarial_loss", adversarial.value));
                loss = loss.and(adversarial, self.recipe.adversarial_weight)?;
            }
            Ok((loss, terms))
        })
    }

    /// The critic's loss. `heads`: those of its two passes, over drawn clips and true ones.
    pub fn critic_loss(
        &self,
        networks: &Networks,
        heads: Option<[Heads; 2]>,
        draws: &[Draw],
        part: Range<usize>,
    ) -> Result<(Loss, Terms)> {
        let (student, fake) = (networks.student()?, networks.fake()?);
        mean(&draws[part], |draw| {
            let sample = self.sample(draw);
            let y = tensors::values(&sample.drawn(&student)?)?;
            let x = self
                .pool
                .latent(&dmd::noised(&y, &draw.noise, draw.level))?;
            let velocity: Vec<f32> = draw.noise.iter().zip(&y).map(|(e, y)| e - y).collect();
            let (predicted, tokens) = sample.tokens(&fake, &x, draw.level)?;
            let mut loss = loss::mean_square(&predicted, &velocity)?;
            let mut terms = vec![("critic_loss", loss.value)];
            if let Some([of_drawn, of_true]) = heads {
                let logits = of_drawn.logits(&tokens, true)?;
                let drawn = dmd::softplus_loss(&logits, 1.0)?;
                let x = dmd::noised(&sample.clip.latent, &draw.real, draw.level);
                let (_, tokens) = sample.tokens(&fake, &self.pool.latent(&x)?, draw.level)?;
                let logits = of_true.logits(&tokens, true)?;
                let told = drawn.and(dmd::softplus_loss(&logits, -1.0)?, 1.0)?;
                terms.push(("discriminator_loss", told.value));
                loss = loss.and(told, self.recipe.critic_adversarial_weight)?;
            }
            Ok((loss, terms))
        })
    }
}

impl Heads<'_> {
    fn logits(&self, tokens: &[Tensor], learns: bool) -> Result<Tensor> {
        self.discriminator.logits(tokens, self.normalised, learns)
    }
}

impl Sample<'_> {
    /// A network's velocity of a latent.
    fn velocity(&self, network: &VideoTransformer, x: &Tensor, level: f32) -> Result<Tensor> {
        let seen = self.led.pool.seen(x, self.clip, None)?;
        Ok(network.forward(&seen, TIMES * level, self.by, &mut Trace::none())?)
    }

    /// The guided teacher's, at the level of the draw.
    fn guided(&self, real: &VideoTransformer, x: &[f32]) -> Result<Vec<f32>> {
        let (pool, level) = (self.led.pool, self.draw.level);
        let seen = pool.seen(&pool.latent(x)?, self.clip, None)?;
        let at = |by: &VideoConditioning| -> Result<Vec<f32>> {
            let velocity = real.forward(&seen, TIMES * level, by, &mut Trace::none())?;
            tensors::values(&velocity)
        };
        let velocity = at(self.by)?;
        let strength = self.led.recipe.guidance as f32;
        match strength == 1.0 {
            true => Ok(velocity),
            false => Ok(dmd::guided(&velocity, &at(self.led.against)?, strength)),
        }
    }

    /// The clip that the student draws, with gradients by its last step alone: the steps before are taken as in
    /// inference.
    fn drawn(&self, student: &VideoTransformer) -> Result<Tensor> {
        let (pool, recipe) = (self.led.pool, self.led.recipe);
        let given = pool.given(self.clip)?;
        let mut x = beginning(&pool.latent(&self.draw.start)?, given.as_ref())?;
        let levels = video_sigmas(recipe.steps, recipe.flow_shift);
        for step in 0..self.draw.step {
            let velocity = self.velocity(student, &x, levels[step])?.detach();
            let by = f64::from(levels[step + 1] - levels[step]);
            x = (&x + velocity.affine(by, 0.0)?)?.detach();
        }
        let level = levels[self.draw.step];
        let velocity = self.velocity(student, &x, level)?;
        Ok((x - velocity.affine(f64::from(level), 0.0)?)?)
    }

    /// The critic's velocity, and what the heads see of it: the tokens `[1,N,width]` of the clip after their blocks.
    fn tokens(
        &self,
        fake: &VideoTransformer,
        x: &Tensor,
        level: f32,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let pool = self.led.pool;
        let seen = pool.seen(x, self.clip, None)?;
        let blocks = match self.led.recipe.has_heads() {
            true => &self.led.recipe.head_blocks[..],
            false => &[],
        };
        let name = |block: &usize| format!("single_transformer_blocks.{block}");
        let names: Vec<String> = blocks.iter().map(name).collect();
        let mut found: Vec<Option<Tensor>> = vec![None; names.len()];
        let mut see = |name: &str, x: &Tensor| {
            if let Some(index) = names.iter().position(|wanted| wanted == name) {
                found[index] = Some(x.clone());
            }
        };
        let trace = &mut Trace::parts(&mut see);
        let velocity = fake.forward(&seen, TIMES * level, self.by, trace)?;
        let [frames, rows, columns, _] = pool.shape;
        let count: usize = fake.config().grid(frames, rows, columns).iter().product();
        let tokens = found.into_iter().zip(&names).map(|(tokens, name)| {
            let missing = || Error::Data(format!("the critic has no {name}"));
            let tokens = tokens.ok_or_else(missing)?;
            // Those of the text stand behind.
            Ok(tokens.narrow(1, 0, count)?.contiguous()?)
        });
        Ok((velocity, tokens.collect::<Result<_>>()?))
    }
}

/// The mean loss of samples, and the means of what it is made of.
fn mean(
    draws: &[Draw],
    mut loss: impl FnMut(&Draw) -> Result<(Loss, Terms)>,
) -> Result<(Loss, Terms)> {
    let share = 1.0 / draws.len().max(1) as f64;
    let mut total: Option<Loss> = None;
    let mut means = Terms::new();
    for draw in draws {
        let (loss, terms) = loss(draw)?;
        total = Some(match total {
            Some(total) => total.and(loss, share)?,
            None => loss.scaled(share)?,
        });
        for (key, value) in terms {
            match means.iter_mut().find(|(known, _)| *known == key) {
                Some((_, mean)) => *mean += share * value,
                None => means.push((key, share * value)),
            }
        }
    }
    let nothing = || Error::Data("a part of a batch without samples".to_owned());
    Ok((total.ok_or_else(nothing)?, means))
}
