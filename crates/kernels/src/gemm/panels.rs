//! A block of rows times panels from anywhere, on the caller's thread.

use super::layout::{DEPTH, PANEL, STRIDE, Target};
use super::microkernel::{tile, tile_shape};
use super::stored::Stored;
use crate::simd::Level;
use std::ops::Range;

/// Values of the scratch that a product over f32 panels wants: two widened panels of [`DEPTH`].
pub(crate) const SCRATCH: usize = 2 * DEPTH * PANEL;

/// Tiles of rows that are few.
pub(super) const FEW_TILES: usize = 2;

/// Where the panels of a product come from.
pub(crate) trait PanelSource<S> {
    /// A panel, in `scratch` where it is stored otherwise; as many inner values as the product needs, or
    /// more.
    fn panel<'a>(&'a self, index: usize, scratch: &'a mut [f32]) -> &'a [S];
    /// Asks for part `part` of `parts` of a panel, if there is such a panel.
    fn prefetch(&self, _index: usize, _part: usize, _parts: usize) {}
    /// Bytes from a value to what is worth asking for while it is in work, where no part of the next panel
    /// is.
    fn ahead(&self) -> usize {
        0
    }
}

/// `target (+)= block·panels` for `rows` rows of `block`, [`STRIDE`] apart, and `depth` inner values of
/// some panels of `source`, of which `columns` outputs are written: every panel meets all rows while it
/// is in the first-level cache, and what comes next is fetched meanwhile. `scratch` is [`SCRATCH`] long.
///
/// # Safety
/// The target holds `rows` rows of `columns`, and nobody else uses it meanwhile.
///
/// # Panics
/// When block, panels or scratch are shorter than the sizes say.
pub(crate) unsafe fn panel_product<S: Stored>(
    level: Level,
    (block, rows, depth): (&[f32], usize, usize),
    source: &impl PanelSource<S>,
    panels: Range<usize>,
    columns: usize,
    target: Target,
    scratch: &mut [f32],
) {
    assert!(
        depth <= DEPTH && (rows == 0 || block.len() >= (rows - 1) * STRIDE + depth),
        "{rows} rows of {depth}"
    );
    let (first, second) = scratch.split_at_mut(DEPTH * PANEL);
    let (most_rows, most_panels) = tile_shape(level);
    let tiles = rows.div_ceil(most_rows);
    // Many tiles leave time to fetch the next panel in; few take panels as fast as they come.
    let few = tiles <= FEW_TILES;
    for (step, index) in panels.clone().step_by(most_panels).enumerate() {
        let count = most_panels.min(panels.end - index);
        let held = source.panel(index, first);
        let held = [
            held,
            if count > 1 {
                source.panel(index + 1, second)
            } else {
                held
            },
        ];
        let held = &held[..count];
        for panel in held {
            assert!(panel.len() >= S::count(depth), "a panel of {depth}");
        }
        let column = step * most_panels * PANEL;
        let width = (columns - column).min(count * PANEL);
        for i in 0..tiles {
            // Tiles of nearly equal height: a last one of a row or two would run at a fraction of
            // the speed.
            let (row, end) = (rows * i / tiles, rows * (i + 1) / tiles);
            if !few {
                for next in (index + count..panels.end).take(most_panels) {
                    source.prefetch(next, i, tiles);
                }
            }
            let ahead = if few && i == 0 { source.ahead() } else { 0 };
            // SAFETY: tiles are no larger than the level's; block and panels were found long enough;
            // these rows and columns lie within the target, which the caller promised.
            unsafe {
                let target = Target {
                    out: target.out.add(row * target.stride + column),
                    ..target
                };
                let a = block.as_ptr().add(row * STRIDE);
                tile(level, end - row, depth, a, (held, ahead), width, target);
            }
        }
    }
}
