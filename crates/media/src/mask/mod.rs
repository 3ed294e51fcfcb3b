//! Which pixels of a picture belong to something.

mod drawn;
mod outlines;
mod regions;
mod runs;

pub use drawn::{Marks, overlay};
pub use regions::Regions;
pub use runs::Runs;

use crate::picture::check_size;
use crate::{Error, Result};

/// A pixel each, inside or outside; rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    pixels: Vec<bool>,
}

impl Mask {
    /// Wraps `pixels`.
    ///
    /// # Errors
    /// Another number than `width · height`, or a size out of limits.
    pub fn new(width: usize, height: usize, pixels: Vec<bool>) -> Result<Self> {
        check_size("mask", width as u64, height as u64)?;
        if pixels.len() != width * height {
            return Err(Error::Argument(format!(
                "{} pixels for a mask of {width}x{height}",
                pixels.len()
            )));
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, rows from the top.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// Pixels inside.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|inside| **inside).count()
    }

    /// Columns and rows of the first and the last pixel inside, `[left, top, right, bottom]`; none of an empty
    /// mask.
    pub fn bounds(&self) -> Option<[usize; 4]> {
        let rows = self.pixels.chunks_exact(self.width);
        let mut found: Option<[usize; 4]> = None;
        for (y, row) in rows.enumerate() {
            let Some(first) = row.iter().position(|inside| *inside) else {
                continue;
            };
            let last = row.iter().rposition(|inside| *inside).unwrap_or(first);
            let [left, top, right, _] = found.unwrap_or([first, y, last, y]);
            found = Some([left.min(first), top, right.max(last), y]);
        }
        found
    }

    /// The part from the first to the last column and row of `bounds`, as [`bounds`](Self::bounds) gives them; what
    /// lies beyond the mask is left out.
    pub fn cut(&self, [left, top, right, bottom]: [usize; 4]) -> Self {
        let within = |from: usize, to: usize, side: usize| from.min(side - 1)..to.min(side - 1) + 1;
        let (columns, rows) = (
            within(left, right, self.width),
            within(top, bottom, self.height),
        );
        let cut = rows
            .clone()
            .flat_map(|y| self.pixels[y * self.width..][columns.clone()].iter());
        Self {
            width: columns.len(),
            height: rows.len(),
            pixels: cut.copied().collect(),
        }
    }

    /// The same within a larger picture, its top left corner at (`x`, `y`).
    ///
    /// # Errors
    /// It does not lie inside.
    pub fn placed(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Self> {
        check_size("mask", width as u64, height as u64)?;
        if x + self.width > width || y + self.height > height {
            return Err(Error::Argument(format!(
                "a mask of {}x{} at ({x}, {y}) does not lie inside {width}x{height}",
                self.width, self.height
            )));
        }
        let mut pixels = vec![false; width * height];
        for (row, from) in self.pixels.chunks_exact(self.width).enumerate() {
            pixels[(y + row) * width + x..][..self.width].copy_from_slice(from);
        }
        Self::new(width, height, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_first_and_last_pixels() {
        let mut pixels = vec![false; 20];
        assert_eq!(Mask::new(5, 4, pixels.clone()).unwrap().bounds(), None);
        for at in [6, 13] {
            pixels[at] = true;
        }
        let mask = Mask::new(5, 4, pixels).unwrap();
        assert_eq!((mask.bounds(), mask.area()), (Some([1, 1, 3, 2]), 2));
        let placed = mask.placed(2, 3, 9, 7).unwrap();
        assert_eq!(placed.bounds(), Some([3, 4, 5, 5]));
        let cut = mask.cut([1, 1, 3, 2]);
        assert_eq!(
            (cut.width, cut.height, cut.bounds()),
            (3, 2, Some([0, 0, 2, 1]))
        );
        assert!(mask.placed(5, 0, 9, 7).is_err() && Mask::new(5, 5, vec![true; 20]).is_err());
    }
}
