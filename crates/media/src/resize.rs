//! Resizing: Pillow's filters bit for bit, and torch's bilinear interpolation.

use std::borrow::Cow;

use crate::{Picture, Result, picture::check_size};

/// Bits behind the point in Pillow's 8-bit filter weights.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resampling filter of Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Area average.
    Box,
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Windowed sinc over three lobes.
    Lanczos,
}

impl Filter {
    /// Half width at scale 1, in source pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// For one target position: the first source position and the fixed-point weights from there on.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Shrinking widens the filter, which is what antialiasing means here.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let inverse = 1.0 / stretch;
    (0..to)
        .map(|target| {
            let centre = (target as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (0..end - start)
                .map(|x| filter.weight(((x + start) as f64 - centre + 0.5) * inverse))
                .collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: f64| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                (if weight < 0.0 {
                    scaled - 0.5
                } else {
                    scaled + 0.5
                }) as i32
            };
            Taps {
                start,
                weights: weights.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resizes to `width` x `height` pixels with the same bytes as Pillow's `Image.resize` on an RGB picture.
///
/// 8-bit fixed-point arithmetic, first along rows, then along columns, rounded to bytes in between; a direction whose
/// length does not change is not filtered. Errors: sides out of limits.
pub fn resize_pil(
    picture: &Picture,
    width: usize,
    height: usize,
    filter: Filter,
) -> Result<Picture> {
    check_size("resized picture", width as u64, height as u64)?;
    check_size("picture", picture.width as u64, picture.height as u64)?;
    const HALF: i32 = 1 << (PRECISION_BITS - 1);
    let mut current = Cow::Borrowed(picture);
    if width != picture.width {
        let taps = taps(picture.width, width, filter);
        let mut pixels = Vec::with_capacity(width * picture.height * 3);
        for row in picture.pixels.chunks_exact(picture.width * 3) {
            for tap in &taps {
                let mut sums = [HALF; 3];
                for (pixel, weight) in row[tap.start * 3..].chunks_exact(3).zip(&tap.weights) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                pixels.extend(sums.map(to_byte));
            }
        }
        current = Cow::Owned(Picture {
            width,
            height: picture.height,
            pixels,
        });
    }
    if height != picture.height {
        let line = width * 3;
        let mut pixels = Vec::with_capacity(line * height);
        for tap in taps(picture.height, height, filter) {
            let mut sums = vec![HALF; line];
            for (row, weight) in current.pixels[tap.start * line..]
                .chunks_exact(line)
                .zip(&tap.weights)
            {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*value) * weight;
                }
            }
            pixels.extend(sums.into_iter().map(to_byte));
        }
        current = Cow::Owned(Picture {
            width,
            height,
            pixels,
        });
    }
    Ok(current.into_owned())
}

/// Resizes `planes` `[channels, height, width]` as torch's `interpolate(mode="bilinear", align_corners=False)`,
/// without antialiasing, and returns `[channels, new_height, new_width]`.
///
/// # Panics
/// `planes` does not hold `channels * height * width` values, or the source has a side of zero.
pub fn interpolate_bilinear(
    planes: &[f32],
    channels: usize,
    height: usize,
    width: usize,
    new_height: usize,
    new_width: usize,
) -> Vec<f32> {
    assert_eq!(
        planes.len(),
        channels * height * width,
        "values of [{channels}, {height}, {width}]"
    );
    let mut result = Vec::with_capacity(channels * new_height * new_width);
    for channel in 0..channels {
        let plane = &planes[channel * height * width..][..height * width];
        let sizes = ([height, width], [new_height, new_width]);
        interpolated_rows(plane, sizes, |row| result.extend_from_slice(row));
    }
    result
}

/// As [`interpolate_bilinear`] of one plane, row by row from the top: the whole result of a large size need not
/// exist. Sizes are height and width.
///
/// # Panics
/// As [`interpolate_bilinear`].
pub fn interpolated_rows(
    plane: &[f32],
    ([height, width], [new_height, new_width]): ([usize; 2], [usize; 2]),
    mut take: impl FnMut(&[f32]),
) {
    assert!(
        height > 0 && width > 0,
        "a source of {height}x{width} has nothing to interpolate"
    );
    assert_eq!(plane.len(), height * width, "values of [{height}, {width}]");
    let columns = neighbours(width, new_width);
    let mut result = Vec::with_capacity(new_width);
    for (top, bottom, down) in neighbours(height, new_height) {
        let upper = &plane[top * width..][..width];
        let lower = &plane[bottom * width..][..width];
        result.clear();
        result.extend(columns.iter().map(|&(left, right, across)| {
            let blend = |row: &[f32]| (1.0 - across) * row[left] + across * row[right];
            (1.0 - down) * blend(upper) + down * blend(lower)
        }));
        take(&result);
    }
}

/// For each target position the two source positions and the weight of the second one.
fn neighbours(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|target| {
            let position = (scale * (target as f32 + 0.5) - 0.5).max(0.0);
            let first = (position as usize).min(from - 1);
            (
                first,
                (first + 1).min(from - 1),
                (position - first as f32).clamp(0.0, 1.0),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_size_is_a_copy_and_flat_stays_flat() {
        let picture = Picture::new(7, 5, (0..105).collect()).unwrap();
        assert_eq!(
            resize_pil(&picture, 7, 5, Filter::Lanczos).unwrap(),
            picture
        );
        let flat = Picture::filled(37, 11, [3, 128, 255]);
        for filter in [
            Filter::Box,
            Filter::Bilinear,
            Filter::Bicubic,
            Filter::Lanczos,
        ] {
            assert_eq!(
                resize_pil(&flat, 5, 64, filter).unwrap(),
                Picture::filled(5, 64, [3, 128, 255])
            );
        }
    }

    #[test]
    fn bad_sizes_are_errors() {
        let picture = Picture::filled(4, 4, [0; 3]);
        assert!(resize_pil(&picture, 0, 4, Filter::Box).is_err());
        assert!(resize_pil(&picture, 4, 20_000, Filter::Box).is_err());
    }

    #[test]
    fn bilinear_doubling_by_hand() {
        let doubled = interpolate_bilinear(&[0.0, 4.0], 1, 1, 2, 1, 4);
        assert_eq!(doubled, [0.0, 1.0, 3.0, 4.0]);
    }
}
