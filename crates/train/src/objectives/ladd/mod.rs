//! The latent adversarial discriminator (LADD) of SANA-Sprint: heads on what the frozen teacher makes of noised latents.

mod batch_norm;
mod heads;
mod spectral_norm;

pub(crate) use heads::{Discriminator, Normalised};

use brisk_nn::{Tensor, Trace};

use super::trigflow::{Angles, FlowNetwork, TrigFlow};
use crate::error::{Error, Result};

/// The teacher's tokens `[B,N,d]` after each of these blocks, for `x` in units of σ_d. Gradients flow through it.
pub(crate) fn features<M: FlowNetwork>(
    teacher: TrigFlow<M>,
    blocks: &[usize],
    x: &Tensor,
    angles: &[f64],
    caption: &M::Caption,
) -> Result<Vec<Tensor>> {
    let names: Vec<String> = blocks.iter().map(|block| M::block(*block)).collect();
    let mut found: Vec<Option<Tensor>> = vec![None; blocks.len()];
    let mut see = |name: &str, x: &Tensor| {
        if let Some(index) = names.iter().position(|wanted| wanted == name) {
            found[index] = Some(x.clone());
        }
    };
    teacher.predict(
        x,
        &Angles::fixed(angles),
        None,
        caption,
        &mut Trace::parts(&mut see),
    )?;
    found
        .into_iter()
        .zip(&names)
        .map(|(tokens, name)| {
            tokens.ok_or_else(|| Error::Data(format!("the teacher has no {name}")))
        })
        .collect()
}

/// The generator's loss: −mean of all logits.
pub(crate) fn generator_loss(logits: &Tensor) -> Result<Tensor> {
    Ok((logits.mean_all()? * -1.0)?)
}

/// The hinge loss ½·(mean relu(1 − real) + mean relu(1 + fake)).
pub(crate) fn hinge_loss(real: &Tensor, fake: &Tensor) -> Result<Tensor> {
    let real = brisk_nn::ops::relu(&real.affine(-1.0, 1.0)?)?.mean_all()?;
    let fake = brisk_nn::ops::relu(&(fake + 1.0)?)?.mean_all()?;
    Ok(((real + fake)? * 0.5)?)
}
