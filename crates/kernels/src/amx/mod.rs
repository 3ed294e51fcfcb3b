//! Matrix products in the tile registers of server processors (AMX, Intel's since Sapphire Rapids).
//!
//! Tiles multiply bf16 and add in f32, at sixteen times the rate of 512-bit multiply-adds. An f32
//! value is the sum of three bf16 values, exactly, so a product with bf16 weights takes three passes
//! and loses nothing that an f32 product keeps; one with f32 weights takes six, which leaves out
//! terms below 2⁻²⁴ of the product. What remains of the difference is the order of additions.

pub(crate) mod int4;
mod split;
mod tile;

use crate::microkernel::{DEPTH, PANEL, Pair, Target};
use crate::packed::{Block, PackedMatrix, StoredPanel};
use crate::scratch::with_buffer;
use std::ops::Range;
pub(crate) use tile::Tiles;

/// Whether processor and system let this process use tiles. Asking is what permits it.
pub(crate) fn available() -> bool {
    use std::sync::OnceLock;
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        /// Bits of leaf 7: bf16 products, tiles, byte products.
        const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        let leaves = __cpuid(0).eax;
        leaves >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED && tile::permit()
    })
}

/// Rows of a tile.
const ROWS: usize = 16;
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

/// Calls `work` with room for so many tiles, each on a cache line of its own.
fn with_tiles<R>(count: usize, work: impl FnOnce(*mut u8) -> R) -> R {
    with_buffer((count * TILE + LINE) / size_of::<f32>(), |buffer| {
        let start = buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the buffer has a line more than the tiles need.
        work(unsafe { start.add(start.align_offset(LINE)) })
    })
}

/// As `packed::block_product`, which says what is promised, for rows any distance apart; the processor
/// has tiles.
pub(crate) unsafe fn block_product(
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
    assert!(depth <= DEPTH);
    if rows == 0 || depth == 0 {
        return;
    }
    assert!(
        x.len() >= (rows - 1) * stride + depth,
        "{rows} rows of {depth}"
    );
    let steps = depth.div_ceil(STEP);
    let row_tiles = rows.div_ceil(ROWS);
    let most = PARTS * DEPTH.div_ceil(STEP);
    with_tiles(row_tiles * steps * PARTS, |a| {
        with_tiles(2 * most, |b| {
            // SAFETY: there is room for these tiles.
            unsafe { split::rows((x, stride), rows, depth, a) };
            let tiles = Tiles::configure();
            for (pair, index) in panels.clone().step_by(2).enumerate() {
                let column = pair * 2 * PANEL;
                let width = (columns - column).min(2 * PANEL);
                let count = 2.min(panels.end - index);
                let mut parts = 1;
                let mut held = [b.cast_const(); 2];
                for (offset, held) in held[..count].iter_mut().enumerate() {
                    let b = b.wrapping_add(offset * most * TILE);
                    *held = b;
                    match w.stored_panel(index + offset, first, depth, scratch) {
                        // Pairs are lines of tiles.
                        StoredPanel::Bf16(pairs) if pairs.len().is_multiple_of(LINES) => {
                            *held = pairs.as_ptr().cast();
                        }
                        StoredPanel::Bf16(pairs) => {
                            let missing = pairs.len().next_multiple_of(LINES) - pairs.len();
                            let b = b.cast::<Pair>();
                            // SAFETY: there is room for the tiles of two panels.
                            unsafe {
                                b.copy_from_nonoverlapping(pairs.as_ptr(), pairs.len());
                                b.add(pairs.len()).write_bytes(0, missing);
                            }
                        }
                        StoredPanel::F32(panel) => {
                            parts = PARTS;
                            // SAFETY: as above, and tiles come with AVX-512.
                            unsafe { split::panel(panel, b) };
                        }
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
                    let factors = ([a(first), a(first + 1)], held, steps);
                    // SAFETY: tiles hold `steps` steps of as many parts; the target has these rows
                    // and columns.
                    unsafe { tiles.multiply(parts, factors, (rows, width), target) };
                }
            }
        });
    });
}
