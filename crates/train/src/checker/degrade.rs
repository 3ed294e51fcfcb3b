//! True scenes made worse, so that a drawn picture's softness is nothing new.

use brisk_media::{Filter, Picture, resize_pil};

use crate::error::Result;
use crate::rng::Rng;

/// Share of pictures that stay as they are.
const CLEAN: f64 = 0.35;
/// Sides that a picture is shrunk to before it is enlarged again.
const SIDES: (usize, usize) = (40, 100);
/// Deviation of the noise at most, of 255.
const NOISE: f64 = 14.0;
/// Largest change of brightness and contrast.
const LIGHT: f64 = 0.12;

/// Blurs, dims or disturbs a picture by lot.
pub(super) fn degrade(picture: &Picture, rng: &mut Rng) -> Result<Picture> {
    if rng.chance(CLEAN) {
        return Ok(picture.clone());
    }
    let mut picture = picture.clone();
    let size = (picture.width, picture.height);
    if rng.chance(0.6) {
        let side = SIDES.0 + rng.below(SIDES.1 - SIDES.0);
        let small = resize_pil(&picture, side, side, Filter::Lanczos)?;
        picture = resize_pil(&small, size.0, size.1, Filter::Bicubic)?;
    }
    let factor = 1.0 + LIGHT * (2.0 * rng.uniform() - 1.0);
    let shift = 255.0 * LIGHT / 2.0 * (2.0 * rng.uniform() - 1.0);
    let deviation = if rng.chance(0.5) {
        NOISE * rng.uniform()
    } else {
        0.0
    };
    let noise = rng.normals(picture.pixels.len());
    for (byte, noise) in picture.pixels.iter_mut().zip(noise) {
        let value = f64::from(*byte) * factor + shift + deviation * f64::from(noise);
        *byte = value.round().clamp(0.0, 255.0) as u8;
    }
    Ok(picture)
}
