//! Measures: held-out PSNR of an autoencoder, how often a text-to-image model draws what it was asked for, and how
//! often a language model solves problems, how well pictures of scenes follow their prompts.

mod alignment;
mod drift;
mod frechet;
mod samples;
pub mod text;
pub mod video;
pub mod words;

use brisk_media::{Picture, psnr};
use brisk_nn::Tensor;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use rayon::prelude::*;
use serde::Serialize;

use crate::data::pictures::PictureData;
use crate::error::{Error, Result};
use crate::families::autoencoder::Autoencoder;
use crate::pictures::{self, Selection};
use crate::rng::Rng;
use crate::tensors;

pub use crate::families::autoencoder::{load_autoencoder, open_autoencoder};
pub use crate::families::masks::scores as masks;
pub use alignment::{
    AlignmentOptions, AlignmentReport, Draw, Judged, Share, evaluate_alignment, held_out_prompts,
};
pub use drift::{Drift, clip_drift};
pub use samples::{pair_distances, picture_distance};

/// Pictures that go through an autoencoder together.
pub(crate) const BATCH: usize = 16;

/// PSNR counted for a picture without any error, dB.
pub(crate) const MAX_PSNR: f64 = 100.0;

/// Mean over the pictures `indices` of each one's PSNR after encoding, decoding and rounding to bytes, dB.
pub fn mean_psnr(model: &Autoencoder, data: &PictureData, indices: &[usize]) -> Result<f64> {
    mean_psnr_of(data, indices, |pictures| {
        Ok(model.decode(&model.encode(pictures)?)?)
    })
}

/// As [`mean_psnr`] for anything that gives pictures `[B,H,W,3]` back.
pub(crate) fn mean_psnr_of(
    data: &PictureData,
    indices: &[usize],
    mut decoded: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<f64> {
    if indices.is_empty() {
        return Err(Error::Data("no picture to measure".to_owned()));
    }
    let mut sum = 0f64;
    for indices in indices.chunks(BATCH) {
        let decoded = decoded(&pictures::batch(data, indices)?)?;
        for (index, picture) in indices.iter().zip(pictures::to_pictures(&decoded)?) {
            sum += psnr(&pictures::original(data, *index)?, &picture)?.min(MAX_PSNR);
        }
    }
    Ok(sum / indices.len() as f64)
}

/// Eight pictures for a sheet, held-out ones where there are any, spread over the data set, whose neighbours
/// look alike.
pub(crate) fn spread(training: &[usize], held_out: &[usize]) -> Vec<usize> {
    let pool = match held_out {
        [] => training,
        held_out => held_out,
    };
    spread_over(pool, 8)
}

/// So many of the indices at most, evenly apart.
pub(crate) fn spread_over(indices: &[usize], most: usize) -> Vec<usize> {
    let count = indices.len().min(most);
    (0..count)
        .map(|number| indices[number * indices.len() / count])
        .collect()
}

/// Scaled latents of the pictures `indices`, channels last, one flat vector a picture.
pub(crate) fn scaled_latents(
    model: &Autoencoder,
    data: &PictureData,
    indices: &[usize],
    control: &Control,
) -> Result<Vec<Vec<f32>>> {
    let mut latents = Vec::with_capacity(indices.len());
    for indices in indices.chunks(BATCH) {
        control.check()?;
        latents.extend(scaled_rows(model, &pictures::batch(data, indices)?)?);
    }
    Ok(latents)
}

pub(crate) fn scaled_rows(model: &Autoencoder, batch: &Tensor) -> Result<Vec<Vec<f32>>> {
    let encoded = model.encode(batch)?;
    let each = encoded.elem_count() / encoded.dim(0)?.max(1);
    let factor = model.scaling_factor() as f32;
    Ok(tensors::values(&encoded)?
        .chunks_exact(each)
        .map(|row| row.iter().map(|value| value * factor).collect())
        .collect())
}

/// A generated picture and, where the caller has it, its scaled latent, channels last.
pub type Generated = (Picture, Option<Vec<f32>>);

/// Draws one picture a prompt from a seed.
pub type Generate<'a> = dyn FnMut(&[String], u64) -> Result<Vec<Generated>> + 'a;

/// What is to be measured of a text-to-image model.
pub struct ImageEvaluation<'a> {
    /// The training data.
    pub data: &'a PictureData,
    /// The pictures that the model was trained on.
    pub pictures: &'a Selection,
    /// The autoencoder whose latents are compared.
    pub autoencoder: &'a Autoencoder,
    /// Number of names that are asked for.
    pub prompts: usize,
    /// Seed of the choice of names and of the pictures.
    pub seed: u64,
    /// Prompts passed to the generator together.
    pub batch: usize,
}

/// One prompt's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retrieval {
    /// What was asked for.
    pub prompt: String,
    /// Name of the training picture that is nearest in pixels.
    pub nearest_in_pixels: String,
    /// Name of the training picture that is nearest in latents.
    pub nearest_in_latents: String,
}

/// Result of [`evaluate_image_model`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageEvaluationReport {
    /// Number of prompts.
    pub prompts: usize,
    /// Training pictures that were searched.
    pub candidates: usize,
    /// Seed.
    pub seed: u64,
    /// Share of prompts whose nearest training picture in pixels (L2 over RGB bytes) bears the prompt's name.
    pub pixel_hit_rate: f64,
    /// The same with L2 over scaled latents.
    pub latent_hit_rate: f64,
    /// Every prompt's result.
    pub results: Vec<Retrieval>,
}

/// Asks for names of training pictures, and looks for the training picture nearest to each answer.
///
/// `generate` gets prompts and a seed, and gives one picture of the data's size a prompt. Where it gives no latents,
/// the pictures are encoded. `control` hears how many prompts are done.
///
/// # Errors
/// Data without training pictures, pictures of another size or number, a cancellation, or whatever `generate` returns.
pub fn evaluate_image_model(
    evaluation: &ImageEvaluation,
    control: &Control,
    generate: &mut Generate<'_>,
) -> Result<ImageEvaluationReport> {
    let data = evaluation.data;
    let side = data.required_side()?;
    let candidates = evaluation.pictures.of(data, false);
    if candidates.is_empty() || evaluation.prompts == 0 {
        return Err(Error::Data(
            "nothing to ask for: no training picture is chosen, or no prompt".to_owned(),
        ));
    }
    let chosen: Vec<usize> = Rng::new(evaluation.seed)
        .permutation(candidates.len())
        .into_iter()
        .take(evaluation.prompts)
        .map(|position| candidates[position])
        .collect();
    let latents = scaled_latents(evaluation.autoencoder, data, &candidates, control)?;
    let planes: Vec<Picture> = candidates
        .iter()
        .map(|index| pictures::original(data, *index))
        .collect::<Result<_>>()?;
    let name = |position: usize| data.entries()[candidates[position]].name.clone();
    let mut results = Vec::with_capacity(chosen.len());
    control.stage("drawing", Work::Run, chosen.len());
    let mut clock = StepClock::new(chosen.len());
    for (number, group) in chosen.chunks(evaluation.batch.max(1)).enumerate() {
        control.check()?;
        let prompts: Vec<String> = group
            .iter()
            .map(|index| data.entries()[*index].name.clone())
            .collect();
        let seed = evaluation.seed.wrapping_add(number as u64);
        let generated = generate(&prompts, seed)?;
        if generated.len() != prompts.len() {
            return Err(Error::Data(format!(
                "{} pictures for {} prompts",
                generated.len(),
                prompts.len()
            )));
        }
        clock.steps(group.len(), control);
        for (prompt, (picture, latent)) in prompts.into_iter().zip(generated) {
            if (picture.width, picture.height) != (side, side) {
                return Err(Error::Data(format!(
                    "a generated picture of {}x{} px, expected {}",
                    picture.width, picture.height, side
                )));
            }
            let latent = match latent {
                Some(latent) => latent,
                None => encode_one(evaluation.autoencoder, &picture)?,
            };
            results.push(Retrieval {
                prompt,
                nearest_in_pixels: name(nearest(&planes, |candidate| {
                    byte_distance(&candidate.pixels, &picture.pixels)
                })),
                nearest_in_latents: name(nearest(&latents, |candidate| {
                    distance(candidate, &latent)
                })),
            });
        }
    }
    let share = |hit: &dyn Fn(&Retrieval) -> bool| {
        results.iter().filter(|result| hit(result)).count() as f64 / results.len() as f64
    };
    Ok(ImageEvaluationReport {
        prompts: results.len(),
        candidates: candidates.len(),
        seed: evaluation.seed,
        pixel_hit_rate: share(&|result| result.nearest_in_pixels == result.prompt),
        latent_hit_rate: share(&|result| result.nearest_in_latents == result.prompt),
        results,
    })
}

fn encode_one(model: &Autoencoder, picture: &Picture) -> Result<Vec<f32>> {
    let batch = pictures::batch_of(std::slice::from_ref(picture))?;
    Ok(scaled_rows(model, &batch)?.remove(0))
}

/// Index of the candidate with the smallest distance; the first of equals.
fn nearest<T: Sync>(candidates: &[T], distance: impl Fn(&T) -> f64 + Sync) -> usize {
    candidates
        .par_iter()
        .enumerate()
        .map(|(index, candidate)| (distance(candidate), index))
        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map_or(0, |(_, index)| index)
}

fn byte_distance(a: &[u8], b: &[u8]) -> f64 {
    // u32 holds the sum of 65536 squares of bytes.
    a.chunks(65536)
        .zip(b.chunks(65536))
        .map(|(a, b)| {
            let sum: u32 = a
                .iter()
                .zip(b)
                .map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2))
                .sum();
            f64::from(sum)
        })
        .sum()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_and_ties_go_to_the_first() {
        let candidates = [[3f32, 0.0], [1.0, 1.0], [1.0, 1.0]];
        let found = nearest(&candidates, |candidate| distance(candidate, &[1.1, 0.9]));
        assert_eq!(found, 1);
        assert_eq!(byte_distance(&[0, 255, 10], &[255, 0, 12]), 130_054.0);
    }
}
