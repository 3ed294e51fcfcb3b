//! Masks as lengths of runs, as the COCO data sets keep them.

use super::Mask;
use crate::picture::check_size;
use crate::{Error, Result};

/// Lengths of runs of equal pixels, column by column from the left and from the top, the first one outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    width: usize,
    height: usize,
    counts: Vec<usize>,
}

impl Runs {
    /// Wraps lengths.
    ///
    /// # Errors
    /// They do not fill the mask, or its size is out of limits.
    pub fn new(width: usize, height: usize, counts: Vec<usize>) -> Result<Self> {
        check_size("mask", width as u64, height as u64)?;
        let sum = counts
            .iter()
            .try_fold(0usize, |sum, count| sum.checked_add(*count));
        if sum != Some(width * height) {
            return Err(Error::Argument(format!(
                "runs of {} pixels for a mask of {width}x{height}",
                sum.map_or_else(|| "too many".to_owned(), |sum| sum.to_string())
            )));
        }
        Ok(Self {
            width,
            height,
            counts,
        })
    }

    /// The lengths.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Pixels inside.
    pub fn area(&self) -> usize {
        self.counts.iter().skip(1).step_by(2).sum()
    }

    /// The text that COCO's tools make of the lengths: the difference of each to the one before the last, five
    /// bits a letter.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (index, count) in self.counts.iter().enumerate() {
            let before = if index > 2 { self.counts[index - 2] } else { 0 };
            let mut left = *count as i64 - before as i64;
            loop {
                let bits = (left & 0x1f) as u8;
                left >>= 5;
                let sign = bits & 0x10 != 0;
                let more = left != if sign { -1 } else { 0 };
                text.push(char::from(bits + if more { 0x20 } else { 0 } + b'0'));
                if !more {
                    break;
                }
            }
        }
        text
    }

    /// Reads the text that [`Runs::to_text`] makes.
    ///
    /// # Errors
    /// Another letter than those, a length that cannot be, or as [`Runs::new`].
    pub fn from_text(width: usize, height: usize, text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::Argument(format!("runs of a mask: {problem}"));
        let mut counts: Vec<usize> = Vec::new();
        let (mut value, mut shift) = (0i64, 0);
        for letter in text.bytes() {
            if !(b'0'..b'0' + 64).contains(&letter) {
                return Err(wrong(&format!(
                    "{:?} is no letter of theirs",
                    char::from(letter)
                )));
            }
            let bits = i64::from(letter - b'0');
            if shift > 50 {
                return Err(wrong("a length of too many letters"));
            }
            value |= (bits & 0x1f) << shift;
            shift += 5;
            if bits & 0x20 != 0 {
                continue;
            }
            if bits & 0x10 != 0 {
                value |= -1 << shift;
            }
            let before = if counts.len() > 2 {
                counts[counts.len() - 2]
            } else {
                0
            };
            let count = usize::try_from(value + before as i64);
            counts.push(count.map_err(|_| wrong("a length below zero"))?);
            (value, shift) = (0, 0);
        }
        if shift > 0 {
            return Err(wrong("the last length is cut off"));
        }
        Self::new(width, height, counts)
    }
}

impl From<&Mask> for Runs {
    fn from(mask: &Mask) -> Self {
        let (width, height) = (mask.width(), mask.height());
        let mut counts = vec![0];
        let mut inside = false;
        for at in (0..width).flat_map(|x| (0..height).map(move |y| y * width + x)) {
            if mask.pixels()[at] != inside {
                counts.push(0);
                inside = !inside;
            }
            if let Some(last) = counts.last_mut() {
                *last += 1;
            }
        }
        Self {
            width,
            height,
            counts,
        }
    }
}

impl From<&Runs> for Mask {
    fn from(runs: &Runs) -> Self {
        let (width, height) = (runs.width, runs.height);
        let mut pixels = vec![false; width * height];
        let mut start = 0;
        for (index, count) in runs.counts.iter().enumerate() {
            if index % 2 == 1 {
                for at in start..start + count {
                    pixels[at % height * width + at / height] = true;
                }
            }
            start += count;
        }
        Self {
            width,
            height,
            pixels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_survive_both_forms() {
        let pixels: Vec<bool> = (0..37 * 23)
            .map(|at| at * at % 11 < 4 || at % 97 > 60)
            .collect();
        for pixels in [pixels, vec![true; 37 * 23], vec![false; 37 * 23]] {
            let mask = Mask::new(37, 23, pixels).unwrap();
            let runs = Runs::from(&mask);
            assert_eq!(Mask::from(&runs), mask);
            assert_eq!(runs.area(), mask.area());
            assert_eq!(Runs::from_text(37, 23, &runs.to_text()).unwrap(), runs);
        }
    }

    #[test]
    fn the_text_is_that_of_cocos_tools() {
        // Columns: outside 6, inside 1, outside 40, inside 4, outside 13.
        let runs = Runs::new(8, 8, vec![6, 1, 40, 4, 13]).unwrap();
        assert_eq!(runs.to_text(), "61X13UO");
        assert_eq!(runs.area(), 5);
    }

    #[test]
    fn damaged_texts_are_refused() {
        for (text, word) in [
            ("6 ", "letter"),
            ("X", "cut off"),
            ("61", "7 pixels"),
            ("O", "below zero"),
            ("oooooooooooo", "too many"),
        ] {
            let message = Runs::from_text(8, 8, text).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
        assert!(Runs::new(2, 2, vec![usize::MAX, 5]).is_err());
    }
}
