//! Codewords that nothing takes.

use brisk_models::hart::{Scales, tokenizer::Tokenizer};
use brisk_nn::{Tensor, Trace};
use candle_core::Var;

use crate::error::Result;
use crate::rng::Rng;
use crate::tensors;

/// Moves every codeword of `table` `[codewords, width]` that no place of the `pictures` `[B,H,W,3]` takes to
/// what some place lacks. Returns how many were moved.
pub(super) fn revive(
    model: &Tokenizer,
    scales: &Scales,
    table: &Var,
    pictures: &Tensor,
    rng: &mut Rng,
) -> Result<usize> {
    let width = table.dims().last().copied().unwrap_or(1);
    let mut taken = vec![false; model.quantizer().codebook().count()];
    let mut wanted: Vec<f32> = Vec::new();
    let latent = model.latent(pictures, &mut Trace::none())?.detach();
    model
        .quantizer()
        .encode_with(scales, &latent, &mut |scale| {
            for code in scale.codes {
                taken[*code as usize] = true;
            }
            wanted.extend(scale.wanted.detach().flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
    let places = wanted.len() / width;
    let free = taken.iter().filter(|taken| !**taken).count();
    tensors::update(table, |values| {
        for (codeword, taken) in values.chunks_exact_mut(width).zip(&taken) {
            if !taken {
                let place = rng.below(places);
                codeword.copy_from_slice(&wanted[place * width..][..width]);
            }
        }
    })?;
    Ok(free)
}
