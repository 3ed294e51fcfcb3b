//! Maps cut into windows, and put together again.

use crate::parallel;
use std::ops::Range;

/// Sizes of maps and of the windows that cover them, from the top and the left; the last may reach beyond the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowShape {
    /// Maps.
    pub batch: usize,
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
    /// Rows and columns of a window.
    pub side: usize,
}

impl WindowShape {
    /// Windows of a map, in rows and columns.
    pub fn windows(&self) -> [usize; 2] {
        [self.height, self.width].map(|length| length.div_ceil(self.side))
    }

    fn cells(&self) -> usize {
        self.batch * self.height * self.width
    }

    fn places(&self) -> usize {
        let [rows, columns] = self.windows();
        self.batch * rows * columns * self.side * self.side
    }
}

/// Some channels of maps `[batch, height, width, channels]` window by window, `[batch·windows, side·side, part]`; beyond
/// the map stand those of `beyond` `[channels]`.
///
/// # Panics
/// When sizes do not fit.
pub fn cut(shape: &WindowShape, map: &[f32], part: Range<usize>, beyond: &[f32], out: &mut [f32]) {
    let (channels, count, side) = (beyond.len(), part.len(), shape.side);
    assert!(
        map.len() == shape.cells() * channels
            && part.end <= channels
            && out.len() == shape.places() * count,
        "{} values to {} in windows of {side}",
        map.len(),
        out.len()
    );
    let [rows, columns] = shape.windows();
    parallel::rows_mut(out, side * count, |first, out| {
        for (at, out) in (first..).zip(out.chunks_exact_mut(side * count)) {
            let (window, row) = (at / side, at % side);
            let (picture, row) = (
                window / (rows * columns),
                window / columns % rows * side + row,
            );
            let column = window % columns * side;
            let inside = match row < shape.height {
                true => side.min(shape.width - column),
                false => 0,
            };
            let (seen, unseen) = out.split_at_mut(inside * count);
            let cell = (picture * shape.height + row) * shape.width + column;
            for (at, out) in (cell..).zip(seen.chunks_exact_mut(count)) {
                out.copy_from_slice(&map[at * channels..][part.clone()]);
            }
            for out in unseen.chunks_exact_mut(count) {
                out.copy_from_slice(&beyond[part.clone()]);
            }
        }
    });
}

/// Maps `[batch, height, width, channels]` of their windows `[batch·windows, side·side, channels]`.
///
/// # Panics
/// When sizes do not fit.
pub fn join(shape: &WindowShape, windows: &[f32], channels: usize, out: &mut [f32]) {
    let side = shape.side;
    assert!(
        windows.len() == shape.places() * channels && out.len() == shape.cells() * channels,
        "{} values of windows of {side} to {}",
        windows.len(),
        out.len()
    );
    let [rows, columns] = shape.windows();
    parallel::rows_mut(out, shape.width * channels, |first, out| {
        for (at, out) in (first..).zip(out.chunks_exact_mut(shape.width * channels)) {
            let (picture, row) = (at / shape.height, at % shape.height);
            let first = (picture * rows + row / side) * columns;
            for (window, out) in (first..).zip(out.chunks_mut(side * channels)) {
                let from = (window * side + row % side) * side * channels;
                out.copy_from_slice(&windows[from..from + out.len()]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    #[test]
    fn windows_have_the_values_of_their_places() {
        for (batch, height, width, side) in
            [(1, 4, 4, 2), (2, 5, 7, 3), (1, 2, 3, 4), (3, 40, 41, 14)]
        {
            let shape = WindowShape {
                batch,
                height,
                width,
                side,
            };
            let (channels, part) = (12, 5..9);
            let map = noise(batch * height * width * channels, 1);
            let beyond = noise(channels, 2);
            let [rows, columns] = shape.windows();
            let mut cut_out = vec![f32::NAN; batch * rows * columns * side * side * part.len()];
            cut(&shape, &map, part.clone(), &beyond, &mut cut_out);
            for (at, found) in cut_out.chunks_exact(part.len()).enumerate() {
                let (window, place) = (at / (side * side), at % (side * side));
                let row = window / columns % rows * side + place / side;
                let column = window % columns * side + place % side;
                let picture = window / (rows * columns);
                let cell = match row < height && column < width {
                    true => &map[((picture * height + row) * width + column) * channels..],
                    false => &beyond[..],
                };
                assert_eq!(found, &cell[part.clone()], "{shape:?}, {at}");
            }
            let mut all = vec![f32::NAN; batch * rows * columns * side * side * channels];
            cut(&shape, &map, 0..channels, &beyond, &mut all);
            let mut joined = vec![f32::NAN; map.len()];
            join(&shape, &all, channels, &mut joined);
            assert_eq!(joined, map, "{shape:?}");
        }
    }
}
