//! What an update minimises.

use brisk_models::hart::{Scales, tokenizer::Tokenizer};
use brisk_nn::{Tensor, Trace};

use super::QuantizationLoss;
use crate::error::Result;
use crate::loss::{self, Loss, ReconstructionLoss};

/// What is decoded of each sample.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase<'a> {
    /// Sums of codewords; everything learns.
    Joint(&'a QuantizationLoss),
    /// For each sample the latent as it is, or the sum; the decoder learns.
    Decoder(&'a [bool]),
}

/// The loss of pictures `[B,H,W,3]`, given as values too.
pub(super) fn objective(
    model: &Tokenizer,
    scales: &Scales,
    (pictures, values): (&Tensor, &[f32]),
    weights: &ReconstructionLoss,
    phase: Phase,
) -> Result<Loss> {
    let latent = model.latent(pictures, &mut Trace::none())?;
    match phase {
        Phase::Joint(quantization) => {
            let (sum, distance) = quantized(model, scales, &latent, quantization.commitment)?;
            // Straight through: the decoder sees the sum, the gradient goes to the latent.
            let through = (&latent + (sum - &latent)?.detach())?;
            let output = model.unbounded_picture(&through, &mut Trace::none())?;
            let picture = loss::reconstruction(&output, values, weights)?;
            picture.plus(&distance, quantization.weight)
        }
        Phase::Decoder(continuous) => {
            let latent = latent.detach();
            let sum = model.quantizer().encode(scales, &latent)?.sum.detach();
            let chosen = chosen(&latent, &sum, continuous)?;
            let output = model.unbounded_picture(&chosen, &mut Trace::none())?;
            loss::reconstruction(&output, values, weights)
        }
    }
}

/// The sum of all scales' codewords, and how far the sums after each scale are from the latent, with its
/// gradients to codewords and φ, and by `commitment` to the latent (VQ-VAE, arXiv 1711.00937).
fn quantized(
    model: &Tokenizer,
    scales: &Scales,
    latent: &Tensor,
    commitment: f64,
) -> Result<(Tensor, Tensor)> {
    let fixed = latent.detach();
    let mut distance: Option<Tensor> = None;
    let encoded = model
        .quantizer()
        .encode_with(scales, &fixed, &mut |scale| {
            let to_latent = (scale.sum - &fixed)?.sqr()?.mean_all()?;
            let to_sum = (latent - scale.sum.detach())?.sqr()?.mean_all()?;
            let both = (to_latent + (to_sum * commitment)?)?;
            distance = Some(match distance.take() {
                Some(before) => (before + both)?,
                None => both,
            });
            Ok(())
        })?;
    let distance = match distance {
        Some(sum) => (sum * (1.0 / scales.count() as f64))?,
        None => Tensor::new(0f32)?,
    };
    Ok((encoded.sum, distance))
}

/// For each sample the one or the other.
fn chosen(latent: &Tensor, sum: &Tensor, continuous: &[bool]) -> Result<Tensor> {
    let rows = continuous.iter().enumerate().map(|(index, continuous)| {
        let source = if *continuous { latent } else { sum };
        source.narrow(0, index, 1)
    });
    let rows = rows.collect::<brisk_nn::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}
