//! The latent adversarial discriminator (LADD) of SANA-Sprint: heads on what the frozen teacher makes of noised latents.

mod batch_norm;
mod heads;
mod spectral_norm;

pub(super) use batch_norm::batch_norm_local;
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
