//! The innermost product: groups of quantized rows times one panel of quantized weights, in integers,
//! with one multiply-add a group to bring in the scales.
//!
//! Every kernel takes a group of the panel once and all rows by it, so weights come from memory once
//! and in order, however many rows there are.

use super::matrix::{QuantizedMatrix, read_codes, read_scale};
use super::rows::RowGroup;
use super::{Bits, GROUP};
use crate::gemm::layout::PANEL;
use crate::simd::{ByteProducts, Level};

/// `sums[i][j] = Σ_k row i · output j` for one panel: `rows` holds the groups of `sums.len()` rows as
/// [`quantize_rows`](super::rows::quantize_rows) makes them.
pub(super) fn panel_product(
    level: Level,
    w: &QuantizedMatrix,
    index: usize,
    rows: &[RowGroup],
    sums: &mut [[f32; PANEL]],
) {
    let panel = w.panel(index);
    assert_eq!(rows.len(), w.groups() * sums.len(), "groups of rows");
    sums.fill([0.0; PANEL]);
    if sums.is_empty() {
        return;
    }
    match level.byte_products() {
        ByteProducts::Portable => portable(w.bits(), panel, rows, sums),
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx2(isa) => x86::avx2(isa, w.bits(), panel, rows, sums),
        #[cfg(target_arch = "x86_64")]
        ByteProducts::AvxVnni(isa) => x86::avx_vnni(isa, w.bits(), panel, rows, sums),
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx512Vnni(isa) => x86::avx512_vnni(isa, w.bits(), panel, rows, sums),
        // Groups of 32 fill half a tile.
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Amx(isa) => x86::avx512_vnni(isa.vnni(), w.bits(), panel, rows, sums),
    }
}

fn portable(bits: Bits, panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
    let mut codes = [[0i8; GROUP]; PANEL];
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in panel.chunks_exact(bits.block()).zip(groups) {
        read_codes(bits, block, &mut codes);
        let scales: [f32; PANEL] = std::array::from_fn(|j| read_scale(bits, block, j));
        for (row, sums) in rows.iter().zip(sums.iter_mut()) {
            for ((codes, scale), sum) in codes.iter().zip(scales).zip(sums) {
                let products = codes.iter().zip(&row.codes);
                let dot: i32 = products
                    .map(|(w, a)| i32::from(i16::from(*w) * i16::from(*a)))
                    .sum();
                *sum += dot as f32 * (scale * row.scale);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
