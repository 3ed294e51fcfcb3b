//! Matrix products in the tile registers of server processors (AMX, Intel's since Sapphire Rapids).
//!
//! Tiles multiply bf16 and add in f32, at sixteen times the rate of 512-bit multiply-adds. An f32
//! value is the sum of three bf16 values, exactly, so a product with bf16 weights takes three passes
//! and loses nothing that an f32 product keeps; one with f32 weights takes six, which leaves out
//! terms below 2⁻²⁴ of the product. What remains of the difference is the order of additions.

mod registers;
mod split;

use super::layout::{Block, DEPTH, PANEL, Pair, Target};
use super::matrix::PackedMatrix;
use crate::scratch::with_buffer;
use crate::simd::{prefetch, x86::Amx};
use registers::Factors;
pub(crate) use registers::{BATCH, Tiles};
use std::ops::Range;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a row of a tile.
const LINE: usize = 64;
/// Bytes of a tile.
const TILE: usize = ROWS * LINE;
/// Inner values of a tile.
const STEP: usize = 32;
/// Lines of a tile of weights: pairs of inner values.
const LINES: usize = STEP / 2;
/// Parts of an f32 value.
const PARTS: usize = 3;

/// Rows that are few: they wait for weights, which come fastest in the order of memory.
const FEW_ROWS: usize = 2 * ROWS;
/// Bytes of the tiles of few rows that stay in the second-level cache, which is of one size in all
/// processors that have tiles.
const HELD: usize = 3 << 19;

/// Inner values that a product with bf16 weights takes at once.
pub(super) fn inner_values(rows: usize) -> usize {
    if rows > FEW_ROWS {
        return DEPTH;
    }
    let step = rows.div_ceil(ROWS).max(1) * PARTS * TILE;
    HELD / step * STEP
}

/// Calls `work` with room for so many tiles, each on a cache line of its own.
fn with_tiles<R>(count: usize, work: impl FnOnce(*mut u8) -> R) -> R {
    with_buffer((count * TILE + LINE) / size_of::<f32>(), |buffer| {
        let start = buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the buffer has a line more than the tiles need.
        work(unsafe { start.add(start.align_offset(LINE)) })
    })
}

/// As [`block_product`](super::product::block_product), for rows any distance apart.
///
/// # Safety
/// The target holds as many rows of `columns` as the block, and nobody else uses it meanwhile.
pub(super) unsafe fn block_product(
    isa: Amx,
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
    if rows == 0 || depth == 0 {
        return;
    }
    assert!(
        x.len() >= (rows - 1) * stride + depth,
        "{rows} rows of {depth}"
    );
    let steps = depth.div_ceil(STEP);
    let row_tiles = rows.div_ceil(ROWS);
    // Few rows take panels from end to end, others some inner values of one after another.
    let next = if rows <= FEW_ROWS {
        prefetch::AHEAD
    } else {
        2 * w.inputs().div_ceil(2) * size_of::<Pair>()
    };
    let most = if w.holds_pairs() {
        steps
    } else {
        PARTS * steps
    };
    with_tiles(row_tiles * steps * PARTS, |a| {
        with_tiles(2 * most, |b| {
            // SAFETY: tiles come with AVX-512; `x` was found to hold the rows, and `a` has room for their
            // tiles.
            unsafe { split::rows((x, stride), rows, depth, a) };
            let tiles = Tiles::configure(isa);
            for (pair, index) in panels.clone().step_by(2).enumerate() {
                let column = pair * 2 * PANEL;
                let width = (columns - column).min(2 * PANEL);
                let count = 2.min(panels.end - index);
                let mut parts = 1;
                let mut held = [b.cast_const(); 2];
                for (offset, held) in held[..count].iter_mut().enumerate() {
                    let b = b.wrapping_add(offset * most * TILE);
                    *held = b;
                    if !w.holds_pairs() {
                        parts = PARTS;
                        let panel = w.panel(index + offset, first, depth, scratch);
                        // SAFETY: tiles come with AVX-512, and `b` has room for three parts of two
                        // panels.
                        unsafe { split::panel(panel, b) };
                        continue;
                    }
                    let pairs = w.pairs(index + offset, first, depth);
                    let missing = pairs.len().next_multiple_of(LINES) - pairs.len();
                    if missing == 0 {
                        // Pairs are lines of tiles.
                        *held = pairs.as_ptr().cast();
                        continue;
                    }
                    let b = b.cast::<Pair>();
                    // SAFETY: `b` has room for the tiles of two panels, of which these pairs and what fills
                    // their last tile are the offset's one.
                    unsafe {
                        b.copy_from_nonoverlapping(pairs.as_ptr(), pairs.len());
                        b.add(pairs.len()).write_bytes(0, missing);
                    }
                }
                for first in (0..row_tiles).step_by(2) {
                    let a = |tile: usize| a.wrapping_add(tile * steps * PARTS * TILE).cast_const();
                    let rows = (rows - first * ROWS).min(2 * ROWS);
                    let target = Target {
                        out: target
                            .out
                            .wrapping_add(first * ROWS * target.stride + column),
                        ..target
                    };
                    let ahead = if first == 0 { next } else { 0 };
                    let factors = Factors {
                        a: [a(first), a(first + 1)],
                        b: held,
                        parts,
                        ahead,
                        steps,
                    };
                    // SAFETY: tiles hold `steps` steps of as many parts; the caller promised a target
                    // of these rows and columns.
                    unsafe { tiles.multiply(factors, (rows, width), target) };
                }
            }
        });
    });
}
