//! The integer product of the 4-bit layer: a group of 64 inputs is one tile.

use super::ROWS;
use super::tile::Tiles;
use crate::int4::GROUP;
use crate::int4_tile::{BLOCK_GROUPS, Tile};
use crate::microkernel::PANEL;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Groups that are multiplied at once.
const BATCH: usize = 4;

/// Adds the products of up to 16 rows, whose weights are signed, to `out`.
///
/// # Safety
/// The processor has tiles; the rounded rows are filled up to whole tiles; weights and scales hold the
/// groups; `out` has these rows, `stride` apart, with the tile's columns, and nobody else uses it.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn multiply(tiles: &Tiles, tile: &Tile, out: *mut f32, stride: usize) {
    #[repr(align(64))]
    struct Line(#[expect(dead_code, reason = "read through a pointer")] [i32; PANEL]);
    // Not cleared: the tiles write whole groups.
    let mut products = [const { MaybeUninit::<Line>::uninit() }; BLOCK_GROUPS * ROWS];
    let (rounded, groups) = (tile.rounded, tile.groups.len());
    let first = tile.rows.start * rounded.groups + tile.groups.start;
    assert!(groups <= BLOCK_GROUPS && tile.rows.len() <= ROWS);
    assert!((tile.rows.start + ROWS) * rounded.groups <= rounded.scales.len());
    // SAFETY: as promised, and the rounded rows have been checked.
    unsafe {
        let codes = rounded.codes.as_ptr().add(first * GROUP);
        let weights = tile.weights.as_ptr().cast::<i8>();
        let place = products.as_mut_ptr().cast::<i32>();
        let factors = |g: usize| {
            let codes = (codes.add(g * GROUP), rounded.groups * GROUP);
            let weights = weights.add(g * GROUP * PANEL);
            (codes, weights, place.add(g * ROWS * PANEL))
        };
        let whole = groups / BATCH * BATCH;
        for g in (0..whole).step_by(BATCH) {
            let (codes, weights, products) = factors(g);
            tiles.multiply_bytes(codes, weights, products);
        }
        for g in whole..groups {
            let (codes, weights, products) = factors(g);
            tiles.multiply_group(codes, weights, products);
        }
        let mut sums = [_mm512_setzero_ps(); ROWS];
        for g in 0..groups {
            let products = place.add(g * ROWS * PANEL);
            let w = _mm512_loadu_ps(tile.scales.as_ptr().add(g * PANEL));
            let scales = rounded.scales.as_ptr().add(first + g);
            for (i, sum) in sums.iter_mut().enumerate() {
                let scale = _mm512_mul_ps(_mm512_set1_ps(*scales.add(i * rounded.groups)), w);
                let product = _mm512_load_si512(products.add(i * PANEL).cast());
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), scale, *sum);
            }
        }
        let mask = ((1u32 << tile.columns) - 1) as u16;
        for (i, sum) in sums[..tile.rows.len()].iter().enumerate() {
            let out = out.add(i * stride);
            let before = _mm512_maskz_loadu_ps(mask, out);
            _mm512_mask_storeu_ps(out, mask, _mm512_add_ps(before, *sum));
        }
    }
}
