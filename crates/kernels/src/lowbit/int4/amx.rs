//! The integer product of the 4-bit layer: a group of 64 inputs is one tile.

use super::GROUP;
use super::operands::{Tile, store_sixteens};
use crate::gemm::amx::{BATCH, ROWS, Tiles};
use crate::gemm::layout::{PANEL, Target};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// The products of all rows, with signed weights, to the target.
///
/// # Safety
/// Weights and scales hold the tile's groups; the target holds its rows with its columns, and nobody else
/// uses it.
///
/// # Panics
/// When the rounded rows are not filled up to whole tiles.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(tiles: &Tiles, tile: &Tile, target: Target) {
    #[repr(align(64))]
    struct Line(#[expect(dead_code, reason = "read through a pointer")] [i32; PANEL]);
    // Not cleared: the tiles write whole groups. Two batches, of which one is computed while the other
    // is scaled.
    let mut products = [const { MaybeUninit::<Line>::uninit() }; 2 * BATCH * ROWS];
    let (rounded, groups, rows) = (tile.rounded, tile.groups.len(), tile.rows.len());
    if groups == 0 || rows == 0 {
        return;
    }
    let blocks = rows.div_ceil(ROWS);
    assert!((tile.rows.start + blocks * ROWS) * rounded.groups <= rounded.scales.len());
    let batches = groups.div_ceil(BATCH);
    let edge = |batch: usize| groups * batch / batches;
    // SAFETY: the rounded rows were found to hold whole tiles; weights, scales and target are as the caller
    // promised; the products of a batch are stored before they are read.
    unsafe {
        let place = products.as_mut_ptr().cast::<i32>();
        let buffer = |number: usize| place.add(number % 2 * BATCH * ROWS * PANEL);
        let start = |block: usize, batch: usize| {
            let row = tile.rows.start + block * ROWS;
            let (first, last) = (edge(batch), edge(batch + 1));
            let at = row * rounded.groups + tile.groups.start + first;
            let codes = rounded.codes.as_ptr().add(at * GROUP);
            let weights = tile.weights.as_ptr().add(first * GROUP * PANEL).cast();
            tiles.multiply_bytes((codes, rounded.groups * GROUP), weights, last - first);
            last - first
        };
        let count = start(0, 0);
        tiles.store_products(buffer(0), count);
        let mut number = 0;
        for block in 0..blocks {
            let row = tile.rows.start + block * ROWS;
            let mut sums = [_mm512_setzero_ps(); ROWS];
            for batch in 0..batches {
                let next = match (block, batch) {
                    (block, batch) if batch + 1 < batches => Some(start(block, batch + 1)),
                    (block, _) if block + 1 < blocks => Some(start(block + 1, 0)),
                    _ => None,
                };
                for g in edge(batch)..edge(batch + 1) {
                    let products = buffer(number).add((g - edge(batch)) * ROWS * PANEL);
                    let w = _mm512_loadu_ps(tile.scales.as_ptr().add(g * PANEL));
                    let at = row * rounded.groups + tile.groups.start + g;
                    let scales = rounded.scales.as_ptr().add(at);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let scale = _mm512_set1_ps(*scales.add(i * rounded.groups));
                        let scale = _mm512_mul_ps(scale, w);
                        let product = _mm512_load_si512(products.add(i * PANEL).cast());
                        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), scale, *sum);
                    }
                }
                number += 1;
                if let Some(count) = next {
                    tiles.store_products(buffer(number), count);
                }
            }
            let target = Target {
                out: target.out.add(block * ROWS * target.stride),
                ..target
            };
            let here = ROWS.min(rows - block * ROWS);
            store_sixteens(&sums[..here], tile.columns, target);
        }
    }
}
