//! An RGB picture in memory.

use crate::{Error, Result};

/// Largest width or height in pixels that any function of this crate accepts.
pub const MAX_SIDE: usize = 16384;
/// Largest number of pixels in one picture (400 MB of RGB).
pub(crate) const MAX_AREA: usize = 1 << 27;

/// An 8-bit RGB picture, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `height * width * 3` bytes: R, G, B of the top left pixel first.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Wraps `pixels`; an error if their number is not `width * height * 3` or the size is out of limits.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let picture = Self {
            width,
            height,
            pixels,
        };
        picture.check()?;
        Ok(picture)
    }

    /// An error if the number of bytes is not `width * height * 3` or the size is out of limits.
    pub fn check(&self) -> Result<()> {
        let (width, height, found) = (self.width, self.height, self.pixels.len());
        check_size("picture", width as u64, height as u64)?;
        let expected = width * height * 3;
        if found != expected {
            return Err(Error::PixelCount {
                width,
                height,
                found,
                expected,
            });
        }
        Ok(())
    }

    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let pixels = colour
            .iter()
            .copied()
            .cycle()
            .take(width * height * 3)
            .collect();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// From planes `[3, height, width]`.
    pub fn from_planes(width: usize, height: usize, planes: &[u8]) -> Result<Self> {
        check_size("planes", width as u64, height as u64)?;
        let area = width * height;
        if planes.len() != area * 3 {
            return Err(Error::PixelCount {
                width,
                height,
                found: planes.len(),
                expected: area * 3,
            });
        }
        let pixels = (0..area)
            .flat_map(|i| [planes[i], planes[area + i], planes[2 * area + i]])
            .collect();
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// The colours as planes `[3, height, width]`.
    pub fn to_planes(&self) -> Vec<u8> {
        (0..3)
            .flat_map(|c| self.pixels.iter().skip(c).step_by(3).copied())
            .collect()
    }

    /// The colour at column `x`, row `y`; `None` outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y * self.width + x) * 3;
        self.pixels.get(at..at + 3).map(|p| [p[0], p[1], p[2]])
    }

    /// Lays another picture over this one, with its top left corner at column `left`, row `top`; what has no room is left out.
    pub fn paste(&mut self, other: &Self, left: usize, top: usize) {
        let width = other.width.min(self.width.saturating_sub(left));
        if width == 0 {
            return;
        }
        let rows = other.pixels.chunks_exact((other.width * 3).max(1));
        for (y, row) in rows.take(self.height.saturating_sub(top)).enumerate() {
            let at = ((top + y) * self.width + left) * 3;
            self.pixels[at..at + 3 * width].copy_from_slice(&row[..3 * width]);
        }
    }

    /// Mean and standard deviation of red, green and blue, 0 to 255; zeros of a picture without pixels.
    pub fn colours(&self) -> [(f64, f64); 3] {
        let count = (self.width * self.height).max(1) as f64;
        [0, 1, 2].map(|colour| {
            let plane = self.pixels.iter().skip(colour).step_by(3);
            let values = plane.map(|byte| f64::from(*byte));
            let mean = values.clone().sum::<f64>() / count;
            let squares = values.map(|value| (value - mean).powi(2));
            (mean, (squares.sum::<f64>() / count).sqrt())
        })
    }

    /// The rectangle of this size in the middle, or half a pixel left of it or above; an error if it is larger
    /// than the picture.
    pub fn middle(&self, width: usize, height: usize) -> Result<Self> {
        let start = |all: usize, length: usize| all.saturating_sub(length) / 2;
        self.crop(
            start(self.width, width),
            start(self.height, height),
            width,
            height,
        )
    }

    /// The rectangle with its top left corner at (`x`, `y`); an error if it leaves the picture.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Self> {
        let inside = |start: usize, length: usize, limit: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= limit)
        };
        if !inside(x, width, self.width) || !inside(y, height, self.height) {
            return Err(Error::Argument(format!(
                "crop of {width}x{height} at ({x}, {y}) does not lie inside the {}x{} picture",
                self.width, self.height
            )));
        }
        let mut pixels = Vec::with_capacity(width * height * 3);
        for row in y..y + height {
            let at = (row * self.width + x) * 3;
            pixels.extend_from_slice(&self.pixels[at..at + width * 3]);
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }
}

/// A byte as a colour of −1..=1.
pub fn byte_to_signed(value: u8) -> f32 {
    f32::from(value) / 127.5 - 1.0
}

/// A colour of −1..=1 as the nearest byte, ties to even, as numpy rounds; what lies outside is clamped.
pub fn signed_to_byte(value: f32) -> u8 {
    ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

/// Refuses empty and oversized pictures.
pub(crate) fn check_size(label: &str, width: u64, height: u64) -> Result<()> {
    let limit = MAX_SIDE as u64;
    let good = (1..=limit).contains(&width)
        && (1..=limit).contains(&height)
        && width * height <= MAX_AREA as u64;
    if good {
        return Ok(());
    }
    Err(Error::Size {
        label: label.into(),
        width,
        height,
        limit: MAX_SIDE,
        area: MAX_AREA,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_outside_is_left_out() {
        let mut picture = Picture::filled(3, 2, [0; 3]);
        let other = Picture::filled(2, 2, [9, 8, 7]);
        picture.paste(&other, 2, 1);
        let seen = |picture: &Picture| picture.pixels.iter().filter(|byte| **byte > 0).count();
        assert_eq!((picture.pixel(2, 1), seen(&picture)), (Some([9, 8, 7]), 3));
        for (left, top) in [(3, 1), (9, 0), (0, 2), (0, 9)] {
            picture.paste(&other, left, top);
        }
        assert_eq!(seen(&picture), 3);
        picture.paste(&other, 1, 0);
        assert_eq!(seen(&picture), 12);
    }

    #[test]
    fn colours_are_told_by_mean_and_spread() {
        let mut picture = Picture::filled(2, 1, [10, 20, 0]);
        picture.paste(&Picture::filled(1, 1, [30, 20, 0]), 1, 0);
        assert_eq!(picture.colours(), [(20.0, 10.0), (20.0, 0.0), (0.0, 0.0)]);
    }

    #[test]
    fn bytes_and_signed_colours_are_one_scale() {
        for byte in 0..=255 {
            assert_eq!(signed_to_byte(f32::from(byte) / 255.0 * 2.0 - 1.0), byte);
        }
        for (value, byte) in [
            (-1.0, 0),
            (1.0, 255),
            (-7.0, 0),
            (7.0, 255),
            (f32::INFINITY, 255),
            // 127.5 and 126.5 before rounding.
            (0.0, 128),
            (126.5 / 255.0 * 2.0 - 1.0, 126),
        ] {
            assert_eq!(signed_to_byte(value), byte, "{value}");
        }
    }

    #[test]
    fn planes_round_trip() {
        let picture = Picture::new(2, 3, (0..18).collect()).unwrap();
        let planes = picture.to_planes();
        assert_eq!(&planes[..6], &[0, 3, 6, 9, 12, 15]);
        assert_eq!(Picture::from_planes(2, 3, &planes).unwrap(), picture);
        assert_eq!(picture.pixel(1, 2), Some([15, 16, 17]));
        assert_eq!(picture.pixel(2, 0), None);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(matches!(
            Picture::new(2, 2, vec![0; 11]),
            Err(Error::PixelCount { expected: 12, .. })
        ));
        assert!(matches!(
            Picture::new(0, 2, vec![]),
            Err(Error::Size { .. })
        ));
        assert!(matches!(check_size("x", 16385, 1), Err(Error::Size { .. })));
        assert!(matches!(
            check_size("x", 16384, 16384),
            Err(Error::Size { .. })
        ));
        assert!(Picture::from_planes(2, 2, &[0; 13]).is_err());
    }

    #[test]
    fn crop_takes_the_right_pixels() {
        let picture = Picture::new(3, 2, (0..18).collect()).unwrap();
        assert_eq!(
            picture.crop(1, 1, 2, 1).unwrap().pixels,
            (12..18).collect::<Vec<u8>>()
        );
        assert!(picture.crop(2, 0, 2, 1).is_err());
        assert!(picture.crop(usize::MAX, 0, 2, 1).is_err());
    }
}
