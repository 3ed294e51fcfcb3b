//! Basins (Beucher and Meyer 1993, by priority as scikit-image floods).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A number that sorts, for values that are all numbers.
struct Level(f32);

impl PartialEq for Level {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Level {}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Floods a relief of this width from `markers` (0: none): every pixel of `within` that water reaches by sides of pixels
/// gets the number of the marker whose water came first. Lower pixels are flooded first, of equal ones those that were
/// reached first.
///
/// # Panics
/// Slices of several lengths, or rows that are not whole.
pub fn watershed(relief: &[f32], markers: &[u32], within: &[bool], width: usize) -> Vec<u32> {
    assert!(
        width > 0
            && relief.len().is_multiple_of(width)
            && [markers.len(), within.len()] == [relief.len(); 2],
        "a relief of {} pixels, {width} a row, with {} markers and {} flags",
        relief.len(),
        markers.len(),
        within.len()
    );
    let height = relief.len() / width;
    let mut flooded: Vec<u32> = markers
        .iter()
        .zip(within)
        .map(|(marker, within)| if *within { *marker } else { 0 })
        .collect();
    let mut age = 0u64;
    let mut next = BinaryHeap::new();
    for at in (0..flooded.len()).filter(|at| flooded[*at] != 0) {
        next.push(Reverse((Level(relief[at]), age, at)));
        age += 1;
    }
    while let Some(Reverse((_, _, at))) = next.pop() {
        let (x, y) = (at % width, at / width);
        let near = [
            (y > 0).then(|| at - width),
            (x > 0).then(|| at - 1),
            (x + 1 < width).then(|| at + 1),
            (y + 1 < height).then(|| at + width),
        ];
        for near in near.into_iter().flatten() {
            if within[near] && flooded[near] == 0 {
                flooded[near] = flooded[at];
                next.push(Reverse((Level(relief[near]), age, near)));
                age += 1;
            }
        }
    }
    flooded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn water_meets_on_the_ridge() {
        let relief = [0.0, 1.0, 2.0, 5.0, 2.0, 1.0, 0.0];
        let found = watershed(&relief, &[1, 0, 0, 0, 0, 0, 2], &[true; 7], 7);
        assert_eq!(found, [1, 1, 1, 1, 2, 2, 2]);
        let within = [true, true, false, true, true, true, true];
        let found = watershed(&relief, &[1, 0, 0, 0, 0, 0, 2], &within, 7);
        assert_eq!(found, [1, 1, 0, 2, 2, 2, 2]);
    }
}
