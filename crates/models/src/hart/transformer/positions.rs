//! Where rows of text and codes stand.

use brisk_nn::ops::RotaryAngles;

use super::super::Scales;

/// Base of the rotary frequencies.
const THETA: f32 = 10_000.0;

/// Positions of a text's rows: how many real ones stand up to each, less one. Padding in front has −1, padding
/// behind the last real one's.
pub(super) fn of_context(mask: &[bool]) -> Vec<f32> {
    let counts = mask.iter().scan(-1.0, |position, real| {
        *position += if *real { 1.0 } else { 0.0 };
        Some(*position)
    });
    counts.collect()
}

/// Angles of rows of text.
pub(super) fn context_angles(head_dim: usize, positions: &[f32]) -> RotaryAngles {
    RotaryAngles::at(head_dim, THETA, positions)
}

/// Angles of a scale's places for sequences one after another: in the units of the last scale's grid, from
/// where each sequence's text ends.
pub(super) fn grid_angles(
    head_dim: usize,
    scales: &Scales,
    scale: usize,
    ends: &[f32],
) -> RotaryAngles {
    let places = ends.iter().flat_map(|end| {
        let all = 0..scales.sides()[scale].pow(2);
        all.map(move |index| grid_place(scales, scale, index, *end))
    });
    mixed_angles(head_dim, &places.collect::<Vec<_>>())
}

/// Row and column of a scale's place in the units of the last scale's grid, from where the text ends.
pub(super) fn grid_place(scales: &Scales, scale: usize, index: usize, end: f32) -> [f32; 2] {
    let (side, whole) = (scales.sides()[scale], scales.side() as f32);
    [index / side, index % side].map(|index| index as f32 / side as f32 * whole + end)
}

/// Angles of places on grids.
pub(super) fn mixed_angles(head_dim: usize, places: &[[f32; 2]]) -> RotaryAngles {
    RotaryAngles::mixed_axes(head_dim, THETA, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_shares_a_position() {
        let mask = [false, false, true, true, false].to_vec();
        assert_eq!(of_context(&mask), [-1.0, -1.0, 0.0, 1.0, 1.0]);
    }
}
