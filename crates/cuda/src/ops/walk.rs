//! Two arrays visited place by place, each by strides of its own.

use crate::driver::Structure;

/// Most sides that kernels take.
const SIDES: usize = 6;
/// Neighbours that a thread takes at a time where it can.
const EIGHT: usize = 8;

/// Sides, outermost first, and strides of both arrays in values. Sides of one are left out, and sides that follow
/// each other without a gap are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    sides: Vec<usize>,
    strides: [Vec<usize>; 2],
}

impl Walk {
    pub fn new(sides: &[usize], strides: [&[usize]; 2]) -> Self {
        let mut walk = Self {
            sides: Vec::new(),
            strides: [Vec::new(), Vec::new()],
        };
        for (at, side) in sides.iter().enumerate().filter(|(_, side)| **side != 1) {
            let own = strides.map(|strides| strides[at]);
            let follows = walk.sides.last().is_some()
                && (0..2).all(|which| walk.strides[which].last() == Some(&(own[which] * side)));
            match follows {
                true => walk.replace_last(walk.sides[walk.sides.len() - 1] * side, own),
                false => walk.push(*side, own),
            }
        }
        if walk.sides.is_empty() {
            walk.push(1, [1, 1]);
        }
        walk
    }

    fn push(&mut self, side: usize, strides: [usize; 2]) {
        self.sides.push(side);
        for (all, stride) in self.strides.iter_mut().zip(strides) {
            all.push(stride);
        }
    }

    fn replace_last(&mut self, side: usize, strides: [usize; 2]) {
        let last = self.sides.len() - 1;
        self.sides.truncate(last);
        self.strides.iter_mut().for_each(|all| all.truncate(last));
        self.push(side, strides);
    }

    /// The same in eights of neighbours, where they are that in both arrays, or, if values may be `repeated`, one
    /// value in one of them.
    pub fn by_eights(&self, repeated: bool) -> Option<Self> {
        let last = self.sides.len() - 1;
        let neighbours = |strides: &Vec<usize>| {
            strides[last] == 1 && strides[..last].iter().all(|s| s.is_multiple_of(EIGHT))
        };
        // A value that all eight meet may lie anywhere.
        let one = |strides: &Vec<usize>| repeated && strides[last] == 0;
        let fits = self.sides[last].is_multiple_of(EIGHT)
            && self.strides.iter().all(|s| neighbours(s) || one(s))
            && self.strides.iter().any(neighbours);
        if !fits {
            return None;
        }
        let mut walk = self.clone();
        let strides = [0, 1].map(|which| walk.strides[which][last] * EIGHT);
        walk.replace_last(walk.sides[last] / EIGHT, strides);
        Some(walk)
    }

    /// Places.
    pub fn count(&self) -> usize {
        self.sides.iter().product()
    }

    /// Whether kernels take so many sides and places.
    pub fn fits(&self) -> bool {
        self.sides.len() <= SIDES && self.count() < crate::driver::LARGEST
    }

    /// As kernels take it: strides of both, sides, and the number of sides before them that are one.
    pub fn structure(&self) -> Structure {
        let filled = |values: &[usize], fill: usize| {
            let mut all = vec![fill; SIDES - values.len()];
            all.extend(values);
            all
        };
        Structure::new()
            .longs(&filled(&self.strides[0], 0))
            .longs(&filled(&self.strides[1], 0))
            .ints(&filled(&self.sides, 1))
            .int(SIDES - self.sides.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_without_a_gap_are_one() {
        let walk = Walk::new(&[2, 1, 3, 4], [&[12, 12, 4, 1], &[24, 24, 4, 1]]);
        assert_eq!(walk.sides, [2, 12]);
        assert_eq!(walk.strides, [[12, 1], [24, 1]]);
        assert_eq!(walk.by_eights(false), None);
        assert_eq!(Walk::new(&[1, 1], [&[5, 5], &[7, 7]]).count(), 1);
    }

    #[test]
    fn eights_are_neighbours_or_one_value() {
        let walk = Walk::new(&[3, 16], [&[16, 1], &[1, 0]]);
        assert_eq!(walk.by_eights(false), None);
        let eights = walk.by_eights(true).unwrap();
        assert_eq!(eights.sides, [3, 2]);
        assert_eq!(eights.strides, [[16, 8], [1, 0]]);
        // A gap that eight does not divide.
        let gap = Walk::new(&[3, 16], [&[17, 1], &[16, 1]]);
        assert_eq!(gap.by_eights(true), None);
        // One value for all places is no neighbour of itself.
        let one = Walk::new(&[16], [&[0], &[0]]);
        assert_eq!(one.by_eights(true), None);
    }
}
