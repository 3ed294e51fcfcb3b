//! What of a picture is kept, and how large it becomes.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_pipelines::diffusion::resolution::nearest_bin;

use super::super::error::{DataError, Result};
use crate::data::pictures::PictureShape;

/// Sides of pictures of several shapes are multiples of this, as DC-AE's highest usual ratio needs.
const MULTIPLE: usize = 32;
/// The side of the table of shapes that is scaled, and the `sample_size` that it belongs to.
const TABLE: (usize, usize) = (1024, 32);

/// What is kept of each picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// The largest square in its middle.
    #[default]
    Square,
    /// The middle of it, in that shape of SANA's table which is nearest to its own. The table is of 1,024 px; sides are
    /// scaled and rounded to multiples of 32.
    AspectBuckets,
}

impl Cut {
    pub(super) fn check(self, size: usize) -> Result<()> {
        match self == Self::AspectBuckets && !size.is_multiple_of(MULTIPLE) {
            true => Err(DataError::BucketSize(size)),
            false => Ok(()),
        }
    }

    pub(super) fn apply(self, picture: &Picture, size: usize) -> brisk_media::Result<Picture> {
        match self {
            Self::Square => square(picture, size),
            Self::AspectBuckets => cover(picture, bucket(picture, size)),
        }
    }
}

/// The largest square in the middle, `size` pixels wide.
pub(in crate::data) fn square(picture: &Picture, size: usize) -> brisk_media::Result<Picture> {
    let side = picture.width.min(picture.height);
    resize_pil(&picture.middle(side, side)?, size, size, Filter::Lanczos)
}

/// The shape of the table nearest to a picture's, for pictures of `size` pixels.
fn bucket(picture: &Picture, size: usize) -> PictureShape {
    let (side, sample_size) = TABLE;
    let found = nearest_bin(sample_size, picture.height, picture.width);
    let (height, width) = found.unwrap_or((side, side));
    let scaled = |length: usize| {
        let units = (length * size) as f64 / (side * MULTIPLE) as f64;
        (units.round() as usize).max(1) * MULTIPLE
    };
    PictureShape {
        height: scaled(height),
        width: scaled(width),
    }
}

/// The picture made as large as it must be to cover `shape`, and its middle.
fn cover(picture: &Picture, shape: PictureShape) -> brisk_media::Result<Picture> {
    let ratio = |to: usize, from: usize| to as f64 / from as f64;
    let factor = ratio(shape.height, picture.height).max(ratio(shape.width, picture.width));
    let scaled = |length: usize, least: usize| ((length as f64 * factor) as usize).max(least);
    let height = scaled(picture.height, shape.height);
    let width = scaled(picture.width, shape.width);
    let resized = resize_pil(picture, width, height, Filter::Lanczos)?;
    resized.middle(shape.width, shape.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let pixel = |at: usize| {
            [
                (at % width * 200 / width) as u8,
                (at / width * 200 / height) as u8,
                7,
            ]
        };
        Picture {
            width,
            height,
            pixels: (0..width * height).flat_map(pixel).collect(),
        }
    }

    #[test]
    fn pictures_take_the_nearest_shape_and_keep_their_middle() {
        let shape = |width, height, size| {
            let cut = Cut::AspectBuckets
                .apply(&picture(width, height), size)
                .unwrap();
            (cut.width, cut.height)
        };
        assert_eq!(shape(160, 90, 1024), (1344, 768));
        assert_eq!(shape(160, 90, 512), (672, 384));
        assert_eq!(shape(160, 90, 128), (160, 96));
        assert_eq!(shape(100, 104, 128), (128, 128));
        assert_eq!(shape(30, 300, 128), (64, 256));
        // A strip that is longer than any shape loses its ends.
        let cut = Cut::AspectBuckets.apply(&picture(20, 400), 128).unwrap();
        let rows = [0, cut.height / 2, cut.height - 1].map(|y| cut.pixel(32, y).unwrap()[1]);
        assert!(rows[0] > 30 && rows[2] < 170, "{rows:?}");
        assert!(rows[1].abs_diff(100) < 3, "{rows:?}");
    }

    #[test]
    fn buckets_need_whole_cells() {
        assert!(Cut::Square.check(50).is_ok());
        let refused = Cut::AspectBuckets.check(50).unwrap_err().to_string();
        assert!(
            refused.contains("50") && refused.contains("32"),
            "{refused}"
        );
    }
}
