//! Maps in strips of rows.

use std::ops::Range;

use brisk_nn::{Result, Tensor};

/// `height` rows in strips of `rows`.
pub(crate) fn strips(height: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..height).step_by(rows);
    starts.map(move |start| start..(start + rows).min(height))
}

/// A strip with `halo` rows more on either side, where the map has them.
pub(crate) fn widened(strip: &Range<usize>, halo: usize, height: usize) -> Range<usize> {
    strip.start.saturating_sub(halo)..(strip.end + halo).min(height)
}

/// A copy of some rows.
pub(crate) fn rows_of(x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    x.narrow(1, rows.start, rows.len())?.contiguous()
}

/// Replaces the rows of a map, a strip at a time: `work` gets a strip with `halo` rows more on either
/// side as they were, and the strip's place among them.
pub(crate) fn in_place(
    x: Tensor,
    rows: usize,
    halo: usize,
    mut work: impl FnMut(&Tensor, Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    let height = x.dim(1)?;
    // The next strip still sees the last rows of a strip as they were, so it is written after that; no
    // strip sees further.
    let rows = rows.max(halo);
    let mut waiting: Option<(usize, Tensor)> = None;
    for strip in strips(height, rows) {
        let seen = widened(&strip, halo, height);
        let inner = strip.start - seen.start..strip.end - seen.start;
        let y = work(&rows_of(&x, &seen)?, inner)?.detach();
        if let Some((start, before)) = waiting.replace((strip.start, y)) {
            x.slice_set(&before, 1, start)?;
        }
    }
    if let Some((start, last)) = waiting {
        x.slice_set(&last, 1, start)?;
    }
    Ok(x)
}
