//! How large latents are. Nothing in the loss says it, as the decoder undoes any factor; but what a diffusion head
//! gives beside the codes ends at a bound, so the written tokenizer is scaled to that.

use brisk_models::hart::tokenizer::Tokenizer;
use brisk_models::hart::{RESIDUAL_SCALE, Scales};
use brisk_nn::Trace;
use brisk_pipelines::Control;

use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::eval::BATCH;
use crate::pictures;
use crate::tensors::{self, NamedArray};

/// Share of the values which the codes leave that are to lie within the bound.
const WITHIN: f64 = 0.995;

/// The factor at which what the codes leave of these pictures fills the diffusion head's bound; 1 where they leave
/// nothing.
pub(super) fn factor(
    model: &Tokenizer,
    scales: &Scales,
    data: &PictureData,
    training: &[usize],
    control: &Control,
) -> Result<f32> {
    let quantizer = model.quantizer();
    let mut left = Vec::new();
    for indices in training.chunks(BATCH) {
        control.check()?;
        let shown = pictures::batch(data, indices)?;
        let latent = model.latent(&shown, &mut Trace::none())?;
        let encoded = quantizer.encode(scales, &latent)?;
        let last = encoded.codes.last().map_or(&[][..], Vec::as_slice);
        let words = quantizer.codewords(last, indices.len(), scales.side())?;
        left.extend(tensors::values(&(encoded.rest - words)?.abs()?)?);
    }
    let at = ((left.len() as f64 * WITHIN) as usize).min(left.len().saturating_sub(1));
    if left.is_empty() {
        return Ok(1.0);
    }
    let (_, bound, _) = left.select_nth_unstable_by(at, f32::total_cmp);
    Ok(match *bound > 0.0 {
        true => RESIDUAL_SCALE as f32 / *bound,
        false => 1.0,
    })
}

/// The weights of a tokenizer with latents `factor` times as large, which makes the same codes and the same
/// pictures.
pub(super) fn scaled(arrays: &[NamedArray], factor: f32) -> Vec<NamedArray> {
    let scaled = arrays.iter().map(|array| {
        let name = array.name.as_str();
        let phi = name.starts_with("quantize.quant_resi.") && name.ends_with(".bias");
        let factor = match name {
            "quant_conv.weight" | "quant_conv.bias" | super::training::CODEBOOK => factor,
            "post_quant_conv.weight" => 1.0 / factor,
            _ if phi => factor,
            _ => return array.clone(),
        };
        let values = array.values.iter().map(|value| value * factor);
        NamedArray {
            values: values.collect(),
            ..array.clone()
        }
    });
    scaled.collect()
}

#[cfg(test)]
mod tests {
    use brisk_models::hart::tokenizer::{Parts, TokenizerConfig};
    use brisk_nn::{Tensor, Weights};

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn codes_and_pictures_stay() {
        let config = TokenizerConfig {
            vocab_size: 24,
            z_channels: 4,
            ch: 32,
            ch_mult: vec![1, 1],
            v_patch_nums: vec![1, 2, 4],
            quantizer_type: "var_hybrid".to_owned(),
            ..TokenizerConfig::default()
        };
        let scales = config.scales().unwrap();
        let weights = Weights::trainable(None, 5);
        Tokenizer::load(&config, &weights, Parts::All).unwrap();
        let mut rng = Rng::new(2);
        let arrays: Vec<NamedArray> = weights
            .variables()
            .iter()
            .map(|(name, variable)| {
                let mut array = NamedArray::of_variable(name, variable).unwrap();
                // Biases begin at zero, where no factor shows.
                for (value, noise) in array
                    .values
                    .iter_mut()
                    .zip(rng.normals(variable.elem_count()))
                {
                    *value += 0.02 * noise;
                }
                array
            })
            .collect();
        let run = |arrays: &[NamedArray]| {
            let source = tensors::memory_source(arrays, "", false).unwrap();
            let model =
                Tokenizer::load(&config, &Weights::from_source(source), Parts::All).unwrap();
            let picture = Rng::new(1).normals(2 * 8 * 8 * 3);
            let picture = Tensor::from_vec(picture, (2, 8, 8, 3)).unwrap();
            let latent = model.latent(&picture, &mut Trace::none()).unwrap();
            let encoded = model.quantizer().encode(&scales, &latent).unwrap();
            let drawn = model
                .unbounded_picture(&encoded.sum, &mut Trace::none())
                .unwrap();
            let values = |x: &Tensor| tensors::values(x).unwrap();
            (encoded.codes, values(&latent), values(&drawn))
        };
        let (codes, latent, drawn) = run(&arrays);
        let (scaled_codes, scaled_latent, scaled_drawn) = run(&scaled(&arrays, 4.0));
        assert_eq!(codes, scaled_codes);
        for (a, b) in latent.iter().zip(&scaled_latent) {
            assert!((4.0 * a - b).abs() < 1e-5, "{a} {b}");
        }
        for (a, b) in drawn.iter().zip(&scaled_drawn) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
