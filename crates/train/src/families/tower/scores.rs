//! How good a tower is on pictures that it was not trained on.

use std::collections::BTreeSet;

use brisk_media::psnr;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::Control;
use brisk_pipelines::families::similarity::CaptionReader;

use super::networks::Networks;
use super::objective::by_picture;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::eval::{BATCH, MAX_PSNR};
use crate::pictures;

/// Of pictures drawn from the first 1, 2, … codes of every place.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Drawn {
    /// Mean PSNR, dB.
    pub psnr: Vec<f64>,
    /// Mean squared error of values in 0..1.
    pub error: Vec<f64>,
    /// Share of the codewords that are taken.
    pub usage: f64,
}

/// Measures drawing on the pictures `indices`.
pub(super) fn drawn(
    networks: &Networks,
    data: &PictureData,
    indices: &[usize],
    control: &Control,
) -> Result<Drawn> {
    let tower = &networks.tower;
    let quantizer = tower.quantizer();
    let mut found = Drawn {
        psnr: vec![0.0; quantizer.depth()],
        error: vec![0.0; quantizer.depth()],
        usage: 0.0,
    };
    let mut taken = BTreeSet::new();
    for indices in indices.chunks(BATCH) {
        control.check()?;
        let shown = pictures::batch(data, indices)?;
        let encoded = tower.encode(&shown, &mut Trace::none())?;
        for (depth, sum) in quantizer.sums(&encoded.codes)?.iter().enumerate() {
            let decoded = tower.decode(&tower.maps(sum)?, &mut Trace::none())?;
            for (index, picture) in indices.iter().zip(pictures::to_pictures(&decoded)?) {
                let original = pictures::original(data, *index)?;
                let pairs = original.pixels.iter().zip(&picture.pixels);
                let squares: f64 = pairs
                    .map(|(a, b)| (f64::from(a.abs_diff(*b)) / 255.0).powi(2))
                    .sum();
                found.error[depth] += squares / picture.pixels.len() as f64;
                found.psnr[depth] += psnr(&original, &picture)?.min(MAX_PSNR);
            }
        }
        taken.extend(encoded.codes);
    }
    let count = indices.len().max(1) as f64;
    for value in found.psnr.iter_mut().chain(&mut found.error) {
        *value /= count;
    }
    found.usage = taken.len() as f64 / quantizer.count() as f64;
    Ok(found)
}

/// Share of the pictures `indices` whose caption is nearest among those of `batch` pictures, and of the captions
/// whose picture is; captions that say the same are one. `quantized` says whether pictures are compared by their
/// codes.
pub(super) fn retrieval(
    networks: &Networks,
    reader: &CaptionReader,
    (data, indices): (&PictureData, &[usize]),
    batch: usize,
    quantized: bool,
    control: &Control,
) -> Result<f64> {
    let (mut right, mut asked) = (0usize, 0usize);
    // What is left over would be easier.
    let whole = indices.len() / batch * batch;
    let used = if whole == 0 {
        indices
    } else {
        &indices[..whole]
    };
    for indices in used.chunks(batch) {
        let mut seen: Vec<Tensor> = Vec::new();
        let mut captions = Vec::with_capacity(indices.len());
        for some in indices.chunks(BATCH) {
            control.check()?;
            let shown = pictures::batch(data, some)?;
            let vectors = networks.tower.vectors(&shown, &mut Trace::none())?;
            let places = match quantized {
                true => networks.tower.quantizer().encode(&vectors)?.sum,
                false => vectors,
            };
            seen.push(
                networks
                    .contrast
                    .pictures(&by_picture(&places, some.len())?)?,
            );
            for index in some {
                captions.push(reader.ids(&data.entries()[*index].name)?);
            }
        }
        let texts = networks.contrast.texts(&captions.concat())?;
        let logits = networks.contrast.logits(&Tensor::cat(&seen, 0)?, &texts)?;
        let logits = logits.to_vec2::<f32>()?;
        for own in 0..captions.len() {
            let by_picture = nearest(captions.len(), |other| logits[own][other]);
            let by_caption = nearest(captions.len(), |other| logits[other][own]);
            for found in [by_picture, by_caption] {
                right += usize::from(captions[found] == captions[own]);
                asked += 1;
            }
        }
    }
    Ok(right as f64 / asked.max(1) as f64)
}

fn nearest(count: usize, likeness: impl Fn(usize) -> f32) -> usize {
    let best = (0..count).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)).then(b.cmp(a)));
    best.unwrap_or(0)
}
