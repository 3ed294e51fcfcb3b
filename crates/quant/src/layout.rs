//! Where each number of a layer stands in a nunchaku file: the order in which a GPU's matrix unit
//! wants to load it. All of these are permutations, stated as the place of one element.
//!
//! `n` counts outputs, `k` inputs. Codes are 4 bits wide; outputs and inputs are padded to multiples
//! of [`TILE`] in the file.

use rayon::prelude::*;

/// Outputs and inputs of a packed weight are multiples of this.
pub const TILE: usize = 128;

/// Rank of a low-rank branch in the file is a multiple of this.
pub const RANK_TILE: usize = 16;

/// Place of code (n, k) among the 4-bit halves of `qweight`, low half first; `inputs` is padded.
pub fn code_place(n: usize, k: usize, inputs: usize) -> usize {
    let (tile_n, n) = (n / 128, n % 128);
    let (tile_k, k) = (k / 64, k % 64);
    let tile = tile_n * (inputs / 64) + tile_k;
    let word = (((tile * 8 + n / 16) * 8 + n % 8) * 4 + k % 32 / 8) * 4 + n % 16 / 8 * 2 + k / 32;
    word * 8 + k % 8
}

/// Place of the 16-bit scale of output n, group g in `wscales`; with one group also that of a bias,
/// a smoothing factor or a channel's scale.
pub fn scale_place(n: usize, group: usize, groups: usize) -> usize {
    let (tile, n) = (n / 128, n % 128);
    tile * groups * 128 + group * 128 + n / 16 * 16 + n % 8 / 2 * 4 + n % 16 / 8 * 2 + n % 2
}

/// Place of the 8-bit scale of output n, group g of 16 inputs in an nvfp4 `wscales`; `inputs` is
/// padded.
pub fn micro_scale_place(n: usize, group: usize, inputs: usize) -> usize {
    let (tile_n, n) = (n / 128, n % 128);
    let (tile_k, step) = (group / 4, group % 4);
    let tile = tile_n * (inputs / 64) + tile_k;
    (((tile * 8 + n % 8) * 4 + n % 32 / 8) * 4 + n / 32) * 4 + step
}

/// Place of the factor of rank r, input k in `lora_down`.
pub fn down_place(r: usize, k: usize, rank: usize) -> usize {
    factor_place(k / 16 * (rank / 16) + r / 16, r % 16, k % 16)
}

/// Place of the factor of output n, rank r in `lora_up`.
pub fn up_place(n: usize, r: usize, rank: usize) -> usize {
    factor_place(n / 16 * (rank / 16) + r / 16, n % 16, r % 16)
}

fn factor_place(tile: usize, n: usize, k: usize) -> usize {
    ((((tile * 8 + n % 8) * 4 + k % 8 / 2) * 2 + n / 8) * 2 + k / 8) * 2 + k % 2
}

/// Place of code (n, k) among the 4-bit halves of a W4A16 `qweight`, low half first: outputs in fours,
/// inputs in multiples of 64.
pub fn awq_place(n: usize, k: usize, inputs: usize) -> usize {
    let word = n / 4 * inputs + k / 64 * 64 + n % 4 * 16 + k % 64 / 32 * 8 + k % 8;
    word * 4 + k % 32 / 8
}

/// 4-bit codes in their places: `codes` `[outputs, inputs]`, of which the low four bits count.
pub fn pack_codes(
    codes: &[i8],
    outputs: usize,
    inputs: usize,
    place: impl Fn(usize, usize) -> usize,
) -> Vec<u8> {
    assert_eq!(codes.len(), outputs * inputs, "codes of {outputs}x{inputs}");
    let mut bytes = vec![0u8; codes.len() / 2];
    for (n, row) in codes.chunks_exact(inputs).enumerate() {
        for (k, code) in row.iter().enumerate() {
            let place = place(n, k);
            bytes[place / 2] |= (*code as u8 & 15) << (4 * (place % 2));
        }
    }
    bytes
}

/// The codes of [`pack_codes`], 0 to 15.
pub fn unpack_codes(
    bytes: &[u8],
    outputs: usize,
    inputs: usize,
    place: impl Fn(usize, usize) -> usize + Sync,
) -> Vec<u8> {
    assert_eq!(bytes.len() * 2, outputs * inputs, "{outputs}x{inputs}");
    let mut codes = vec![0u8; outputs * inputs];
    codes
        .par_chunks_exact_mut(inputs.max(1))
        .enumerate()
        .for_each(|(n, row)| {
            for (k, code) in row.iter_mut().enumerate() {
                let place = place(n, k);
                *code = bytes[place / 2] >> (4 * (place % 2)) & 15;
            }
        });
    codes
}

/// A matrix `[rows, columns]` in its places.
pub fn pack<T: Copy + Default>(
    values: &[T],
    columns: usize,
    place: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let mut packed = vec![T::default(); values.len()];
    for (row, values) in values.chunks_exact(columns).enumerate() {
        for (column, value) in values.iter().enumerate() {
            packed[place(row, column)] = *value;
        }
    }
    packed
}

/// The matrix `[rows, columns]` of [`pack`].
pub fn unpack<T: Copy>(
    packed: &[T],
    columns: usize,
    place: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let rows = packed.len() / columns;
    let mut values = Vec::with_capacity(packed.len());
    for row in 0..rows {
        values.extend((0..columns).map(|column| packed[place(row, column)]));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place exactly once.
    fn assert_permutation(places: impl Iterator<Item = usize>) {
        let mut places: Vec<usize> = places.collect();
        places.sort_unstable();
        assert!(places.iter().enumerate().all(|(i, place)| i == *place));
    }

    #[test]
    fn every_layout_is_a_permutation() {
        for (outputs, inputs) in [(128, 128), (256, 384), (384, 128)] {
            let all =
                |count: usize| (0..outputs).flat_map(move |n| (0..count).map(move |k| (n, k)));
            assert_permutation(all(inputs).map(|(n, k)| code_place(n, k, inputs)));
            assert_permutation(all(inputs).map(|(n, k)| awq_place(n, k, inputs)));
            let groups = inputs / 64;
            assert_permutation(all(groups).map(|(n, g)| scale_place(n, g, groups)));
            let groups = inputs / 16;
            assert_permutation(all(groups).map(|(n, g)| micro_scale_place(n, g, inputs)));
            for rank in [16, 32, 48] {
                assert_permutation(all(rank).map(|(n, r)| up_place(n, r, rank)));
                assert_permutation(all(rank).map(|(k, r)| down_place(r, k, rank)));
            }
        }
    }
}
