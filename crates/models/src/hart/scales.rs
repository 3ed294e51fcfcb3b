//! The grids that a picture's codes lie in.

use crate::{Error, Result};

/// Most places along a side.
const LARGEST_SIDE: usize = 1 << 10;

/// Sides of the grids of codes, from one place to the latent's own (`patch_nums`): at least two, each
/// larger than the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scales(Vec<usize>);

impl Scales {
    /// Those of a configuration's `key`.
    ///
    /// # Errors
    /// A list that does not begin with 1, does not ascend, or has fewer than two entries.
    pub fn new(key: &str, sides: &[usize]) -> Result<Self> {
        let ascending = sides.is_sorted_by(|a, b| a < b);
        let bounded = sides.last().is_some_and(|side| *side <= LARGEST_SIDE);
        if sides.first() != Some(&1) || sides.len() < 2 || !ascending || !bounded {
            return Err(Error::Config(format!(
                "`{key}` is {sides:?}; expected at least two ascending sides from 1 to at most {LARGEST_SIDE}"
            )));
        }
        Ok(Self(sides.to_vec()))
    }

    /// The sides.
    pub fn sides(&self) -> &[usize] {
        &self.0
    }

    /// Number of scales.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Side of the last grid, which is that of the latent.
    pub fn side(&self) -> usize {
        self.0[self.0.len() - 1]
    }

    /// Codes of all scales.
    pub fn codes(&self) -> usize {
        self.0.iter().map(|side| side * side).sum()
    }

    /// Whether this is the last scale.
    pub fn is_last(&self, scale: usize) -> bool {
        scale + 1 == self.0.len()
    }

    /// How far along a scale is, from 0 to 1.
    pub fn progress(&self, scale: usize) -> f64 {
        scale as f64 / (self.0.len() - 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_ascend_from_one() {
        let scales = Scales::new("patch_nums", &[1, 2, 4]).unwrap();
        assert_eq!((scales.side(), scales.codes(), scales.count()), (4, 21, 3));
        assert!(scales.is_last(2) && !scales.is_last(1));
        assert_eq!(scales.progress(1), 0.5);
        for sides in [
            &[][..],
            &[1],
            &[2, 4],
            &[1, 4, 4],
            &[1, 3, 2],
            &[1, 1 << 20],
        ] {
            let error = Scales::new("patch_nums", sides).unwrap_err().to_string();
            assert!(error.contains("`patch_nums`"), "{error}");
        }
    }
}
