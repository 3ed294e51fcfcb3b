//! A block of rows times panels of a packed weight, on the caller's thread.

use super::layout::{Block, DEPTH, Pair, STRIDE, Target};
use super::matrix::PackedMatrix;
use super::microkernel::tile_shape;
use super::panels::{FEW_TILES, PanelSource, panel_product};
use crate::simd::{Level, prefetch};
use std::ops::Range;

/// Whether a level's kernel takes rows as they lie in memory: it brings them into an order of its own.
pub(crate) fn takes_plain_rows(level: Level) -> bool {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx(_) => true,
        _ => false,
    }
}

/// Rows that runs of them had best be multiples of.
pub(crate) fn row_unit(level: Level) -> usize {
    match level {
        // Two tiles.
        #[cfg(target_arch = "x86_64")]
        Level::Amx(_) => 32,
        other => tile_shape(other).0,
    }
}

/// Inner values that a product of so many rows takes at once.
pub(crate) fn inner_values(level: Level, w: &PackedMatrix, rows: usize) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx(_) if w.holds_pairs() => super::amx::inner_values(rows),
        _ => DEPTH,
    }
}

/// Inner values `first..first + depth` of a matrix.
struct Slab<'a> {
    matrix: &'a PackedMatrix,
    first: usize,
    depth: usize,
}

impl Slab<'_> {
    fn fetch(&self, index: usize, part: usize, parts: usize) {
        let range = self.first..self.first + self.depth;
        self.matrix.fetch(index, range, part, parts);
    }
}

impl PanelSource<f32> for Slab<'_> {
    fn panel<'a>(&'a self, index: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        self.matrix.panel(index, self.first, self.depth, scratch)
    }

    fn prefetch(&self, index: usize, part: usize, parts: usize) {
        self.fetch(index, part, parts);
    }

    fn ahead(&self) -> usize {
        prefetch::AHEAD
    }
}

impl PanelSource<Pair> for Slab<'_> {
    fn panel<'a>(&'a self, index: usize, _: &'a mut [f32]) -> &'a [Pair] {
        self.matrix.pairs(index, self.first, self.depth)
    }

    fn prefetch(&self, index: usize, part: usize, parts: usize) {
        self.fetch(index, part, parts);
    }

    fn ahead(&self) -> usize {
        prefetch::AHEAD
    }
}

/// `target (+)= block·panels` for the inner values `first..first + depth` of `w`, `first` even, of which
/// `columns` outputs are written. `scratch` is [`SCRATCH`](super::panels::SCRATCH) long.
///
/// # Safety
/// The target holds as many rows of `columns` as the block, and nobody else uses it meanwhile.
///
/// # Panics
/// When the block is shorter than its sizes say, or its rows stand otherwise than the level wants.
pub(crate) unsafe fn block_product(
    level: Level,
    block: Block,
    (w, first): (&PackedMatrix, usize),
    panels: Range<usize>,
    columns: usize,
    target: Target,
    scratch: &mut [f32],
) {
    let Block {
        x,
        stride,
        rows,
        depth,
    } = block;
    #[cfg(target_arch = "x86_64")]
    if let Level::Amx(isa) = level
        && depth > 0
    {
        // SAFETY: as the caller promised.
        unsafe {
            super::amx::block_product(isa, block, (w, first), panels, columns, target, scratch);
        }
        return;
    }
    assert_eq!(stride, STRIDE, "rows of a block");
    let factors = (x, rows, depth);
    let slab = Slab {
        matrix: w,
        first,
        depth,
    };
    // Few tiles of rows don't repay a widened copy of every panel.
    let direct = w.holds_pairs() && rows <= FEW_TILES * tile_shape(level).0;
    // SAFETY: as the caller promised.
    unsafe {
        if direct {
            panel_product::<Pair>(level, factors, &slab, panels, columns, target, scratch);
        } else {
            panel_product::<f32>(level, factors, &slab, panels, columns, target, scratch);
        }
    }
}
