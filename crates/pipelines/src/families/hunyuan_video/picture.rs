//! The first frame as the networks see it.

use brisk_media::{Filter, Picture, byte_to_signed, resize_pil};
use brisk_nn::Tensor;

use crate::error::Result;

/// Shapes that the published models were trained at, width and height.
const SHAPES: [[usize; 2]; 5] = [[544, 960], [624, 832], [720, 720], [832, 624], [960, 544]];

/// The trained shape that is nearest to a picture's.
pub(super) fn nearest_shape([width, height]: [usize; 2]) -> [usize; 2] {
    let ratio = |[width, height]: [usize; 2]| width as f64 / height.max(1) as f64;
    let off = |shape: [usize; 2]| (ratio(shape) - ratio([width, height])).abs();
    let nearest = SHAPES
        .into_iter()
        .min_by(|a, b| off(*a).total_cmp(&off(*b)));
    nearest.unwrap_or([960, 544])
}

/// A picture in a frame's size: what another shape has no room for is cut off evenly.
///
/// # Errors
/// A size out of limits.
pub fn fitted(picture: &Picture, width: usize, height: usize) -> Result<Picture> {
    let (own, wanted) = (picture.width * height, width * picture.height);
    let [kept_width, kept_height] = match own.cmp(&wanted) {
        std::cmp::Ordering::Greater => [(wanted / height).max(1), picture.height],
        std::cmp::Ordering::Less => [picture.width, (own / width).max(1)],
        std::cmp::Ordering::Equal => [picture.width, picture.height],
    };
    let cut = picture.middle(kept_width, kept_height)?;
    Ok(resize_pil(&cut, width, height, Filter::Lanczos)?)
}

/// A picture in −1..1, `[1,1,H,W,3]`.
///
/// # Errors
/// Memory.
pub fn signed(picture: &Picture) -> Result<Tensor> {
    let values = picture.pixels.iter().map(|byte| byte_to_signed(*byte));
    let shape = vec![1, 1, picture.height, picture.width, 3];
    Ok(Tensor::from_vec(values.collect(), shape)?)
}

/// How much of the first latent is the picture's and not noise.
const PICTURE_SHARE: f64 = 1e-3;

/// Noise `[1,F,h,w,C]` as a clip begins with it: with a thousandth of the `given` frame's latent `[1,1,h,w,C]` in every
/// frame, as the reference has it.
///
/// # Errors
/// Latents of other shapes.
pub fn beginning(noise: &Tensor, given: Option<&Tensor>) -> Result<Tensor> {
    let Some(given) = given else {
        return Ok(noise.clone());
    };
    let everywhere = given.repeat(vec![1, noise.dim(1)?, 1, 1, 1])?;
    let noise = noise.affine(1.0 - PICTURE_SHARE, 0.0)?;
    Ok((noise + everywhere.affine(PICTURE_SHARE, 0.0)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_cut_off_evenly() {
        let mut wide = Picture::filled(30, 10, [0; 3]);
        for y in 0..10 {
            for x in 10..20 {
                wide.pixels[3 * (y * 30 + x)] = 255;
            }
        }
        let square = fitted(&wide, 20, 20).unwrap();
        assert!(square.pixels.chunks(3).all(|pixel| pixel[0] == 255));
        assert_eq!(fitted(&wide, 30, 10).unwrap(), wide);
        assert_eq!(nearest_shape([1000, 1000]), [720, 720]);
        assert_eq!(nearest_shape([300, 1000]), [544, 960]);
    }
}
