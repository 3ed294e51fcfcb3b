//! How far samples of pictures lie apart.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_nn::Tensor;

use super::BATCH;
use super::frechet::frechet_distance;
use crate::checker::SceneChecker;
use crate::error::Result;
use crate::objectives::perceptual::FeatureNetwork;
use crate::pictures::signed;
use crate::tensors;

/// Side that pictures are compared at, in pixels.
const SIDE: usize = 128;

/// The Fréchet distance of two samples of square pictures, by what the checker of scenes makes of them: its features at an
/// eighth of their sides, averaged over places. Of the same data it ranks models; it is no FID, whose network is another.
///
/// # Errors
/// Samples of fewer than two pictures, or some that cannot be resized.
pub fn picture_distance(
    checker: &SceneChecker,
    first: &[Picture],
    second: &[Picture],
) -> Result<f64> {
    let of = |pictures: &[Picture]| features(checker, pictures, 1);
    frechet_distance(&of(first)?, &of(second)?)
}

/// How far each of some square pictures lies from the one at its place among others, by the features of `network` at every
/// place of both (LPIPS).
///
/// # Errors
/// Pictures that cannot be resized.
pub fn pair_distances(
    network: &FeatureNetwork,
    first: &[Picture],
    second: &[Picture],
) -> Result<Vec<f64>> {
    let seen = |picture: &Picture| -> Result<Tensor> {
        let picture = resize_pil(picture, SIDE, SIDE, Filter::Lanczos)?;
        let values = signed(&picture).collect();
        Ok(Tensor::from_vec(values, (1, SIDE, SIDE, 3))?)
    };
    let pairs = first.iter().zip(second);
    pairs
        .map(|(picture, other)| {
            let distance = network.distance(&seen(picture)?, &seen(other)?)?;
            Ok(f64::from(distance.to_scalar::<f32>()?))
        })
        .collect()
}

/// What the checker makes of each picture: its features at an eighth of the sides, averaged over each part of a grid of so
/// many parts a side, part by part.
pub(super) fn features(
    checker: &SceneChecker,
    pictures: &[Picture],
    grid: usize,
) -> Result<Vec<Vec<f64>>> {
    let mut found = Vec::with_capacity(pictures.len());
    for some in pictures.chunks(BATCH) {
        let mut values = Vec::with_capacity(some.len() * SIDE * SIDE * 3);
        for picture in some {
            values.extend(signed(&resize_pil(picture, SIDE, SIDE, Filter::Lanczos)?));
        }
        let seen = Tensor::from_vec(values, (some.len(), SIDE, SIDE, 3))?;
        let [_, _, map] = checker.features(&seen)?;
        let (count, side, _, channels) = map.dims4()?;
        let (part, values) = (side / grid, tensors::values(&map)?);
        let places = (part * part) as f64;
        for one in values.chunks_exact(values.len() / count.max(1)) {
            let mut means = vec![0.0; grid * grid * channels];
            for (place, seen) in one.chunks_exact(channels).enumerate() {
                let at = place / side / part * grid + place % side / part;
                let mean = &mut means[at * channels..(at + 1) * channels];
                for (sum, value) in mean.iter_mut().zip(seen) {
                    *sum += f64::from(*value) / places;
                }
            }
            found.push(means);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pictures_lie_further_apart() {
        let checker = SceneChecker::in_the_box().unwrap();
        let sample = |shift: usize| -> Vec<Picture> {
            let picture = |index: usize| {
                let pixel = |at: usize| (at * (index + 3) % 97 + shift) as u8;
                Picture::new(16, 16, (0..768).map(pixel).collect()).unwrap()
            };
            (0..6).map(picture).collect()
        };
        let same = picture_distance(&checker, &sample(0), &sample(0)).unwrap();
        let near = picture_distance(&checker, &sample(0), &sample(10)).unwrap();
        let far = picture_distance(&checker, &sample(0), &sample(140)).unwrap();
        assert!(
            same.abs() < 1e-6 && near > 1e-4 && far > near,
            "{same} {near} {far}"
        );
        assert!(picture_distance(&checker, &sample(0)[..1], &sample(0)).is_err());
        let network = FeatureNetwork::in_the_box().unwrap();
        let pairs = |shift: usize| pair_distances(&network, &sample(0), &sample(shift)).unwrap();
        assert!(pairs(0).iter().all(|distance| distance.abs() < 1e-6));
        let (near, far) = (pairs(10), pairs(140));
        assert!(
            near.len() == 6
                && near
                    .iter()
                    .zip(&far)
                    .all(|(near, far)| 0.0 < *near && near < far)
        );
    }
}
