//! Regions of a mask whose pixels touch.

use super::Mask;

/// Regions of the pixels inside a mask, or of those outside.
#[derive(Clone, Debug)]
pub struct Regions {
    /// Of each pixel the number of its region from 1 on; 0: of none.
    labels: Vec<usize>,
    /// Pixels of each region.
    sizes: Vec<usize>,
}

impl Regions {
    /// Regions of the pixels that are `inside` or not; touching corners are enough.
    pub fn of(mask: &Mask, inside: bool) -> Self {
        Self::touching(mask, inside, true)
    }

    /// The same where only touching sides count.
    pub fn by_sides(mask: &Mask, inside: bool) -> Self {
        Self::touching(mask, inside, false)
    }

    fn touching(mask: &Mask, inside: bool, corners: bool) -> Self {
        let (width, height, pixels) = (mask.width(), mask.height(), mask.pixels());
        let mut found = Self {
            labels: vec![0; pixels.len()],
            sizes: Vec::new(),
        };
        let mut next = Vec::new();
        for start in 0..pixels.len() {
            if pixels[start] != inside || found.labels[start] != 0 {
                continue;
            }
            let label = found.sizes.len() + 1;
            found.labels[start] = label;
            next.push(start);
            let mut size = 0;
            while let Some(at) = next.pop() {
                size += 1;
                let (x, y) = (at % width, at / width);
                for y in y.saturating_sub(1)..(y + 2).min(height) {
                    for x in x.saturating_sub(1)..(x + 2).min(width) {
                        let near = y * width + x;
                        let touches = corners || x == at % width || y == at / width;
                        if touches && pixels[near] == inside && found.labels[near] == 0 {
                            found.labels[near] = label;
                            next.push(near);
                        }
                    }
                }
            }
            found.sizes.push(size);
        }
        found
    }

    /// Of each pixel the number of its region from 1 on; 0: of none.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Pixels of each, in the order of their first pixels.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }
}

impl Mask {
    /// Of each pixel whether it lies in a hole: outside, and by sides of pixels apart from the border.
    pub fn holes(&self) -> Vec<bool> {
        let outside = Regions::by_sides(self, false);
        let mut open = vec![false; outside.sizes.len() + 1];
        open[0] = true;
        let (last_column, last_row) = (self.width - 1, self.height - 1);
        for (at, label) in outside.labels.iter().enumerate() {
            let (x, y) = (at % self.width, at / self.width);
            open[*label] |= x == 0 || y == 0 || x == last_column || y == last_row;
        }
        outside.labels.iter().map(|label| !open[*label]).collect()
    }

    /// How many holes there are.
    pub fn hole_count(&self) -> usize {
        let holes = Self {
            pixels: self.holes(),
            ..*self
        };
        Regions::by_sides(&holes, true).sizes.len()
    }

    /// How many separate parts there are.
    pub fn part_count(&self) -> usize {
        Regions::of(self, true).sizes.len()
    }

    /// Without holes of fewer than `least` pixels; none where there are none.
    pub fn without_holes(&self, least: usize) -> Option<Self> {
        let holes = Regions::of(self, false);
        if holes.sizes.iter().all(|size| *size >= least) {
            return None;
        }
        let kept = |label: &usize| *label == 0 || holes.sizes[label - 1] < least;
        Some(Self {
            pixels: holes.labels.iter().map(kept).collect(),
            ..*self
        })
    }

    /// Without separate parts of fewer than `least` pixels, but for the largest where all are so small; none
    /// where there are none.
    pub fn without_islands(&self, least: usize) -> Option<Self> {
        let parts = Regions::of(self, true);
        if parts.sizes.iter().all(|size| *size >= least) {
            return None;
        }
        let largest = parts.sizes.iter().copied().max().unwrap_or(0);
        let first = parts.sizes.iter().position(|size| *size == largest);
        let kept = |label: &usize| match label.checked_sub(1) {
            Some(_) if largest < least => label.checked_sub(1) == first,
            Some(index) => parts.sizes[index] >= least,
            None => false,
        };
        Some(Self {
            pixels: parts.labels.iter().map(kept).collect(),
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: [&str; 4]) -> Mask {
        let pixels = rows.concat().bytes().map(|letter| letter == b'#').collect();
        Mask::new(8, 4, pixels).unwrap()
    }

    #[test]
    fn holes_are_closed_by_corners() {
        let drawn = mask(["####..#.", "#..#.#.#", "####..#.", "........"]);
        let holes = drawn.holes();
        let found: Vec<usize> = (0..32).filter(|at| holes[*at]).collect();
        assert_eq!(found, [9, 10, 14]);
        assert_eq!((drawn.hole_count(), drawn.part_count()), (2, 2));
        assert_eq!(Regions::by_sides(&drawn, true).sizes().len(), 5);
        assert_eq!(Regions::of(&drawn, true).sizes().len(), 2);
    }

    #[test]
    fn small_regions_go_and_corners_touch() {
        let drawn = mask(["####...#", "#..#....", "####.#..", "......#."]);
        assert_eq!(Regions::of(&drawn, true).sizes(), [10, 1, 2]);
        assert_eq!(Regions::of(&drawn, false).sizes(), [17, 2]);
        let filled = mask(["####...#", "####....", "####.#..", "......#."]);
        assert_eq!(drawn.without_holes(3), Some(filled));
        assert_eq!(drawn.without_holes(2), None);
        let alone = mask(["####....", "#..#....", "####....", "........"]);
        assert_eq!(drawn.without_islands(3), Some(alone.clone()));
        assert_eq!(drawn.without_islands(100), Some(alone));
        assert_eq!(drawn.without_islands(1), None);
    }
}
