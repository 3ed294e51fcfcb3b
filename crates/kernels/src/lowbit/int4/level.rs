//! What the kernel of each level wants of rounded rows and unpacked weights.

use crate::simd::{ByteProducts, Level};

/// 1.5·2²³ as f32 bits: small integers that are added to these bits are added to the value.
#[cfg(target_arch = "x86_64")]
pub(super) const INTEGERS: i32 = 0x4b40_0000;

/// What the kernel of a level starts a group's sums with, from the sums of the codes in the first and
/// last half of every four: it makes up for the 8 that is added to weights.
pub(super) fn first_sum(level: Level, sums: [i32; 2]) -> i32 {
    let offset = -8 * (sums[0] + sums[1]);
    match level.byte_products() {
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx2(_) => {
            let [low, high] = sums.map(|sum| u32::from((-8 * sum) as i16 as u16));
            (low | high << 16) as i32
        }
        // Its sums become f32 by a subtraction, which another port does beside the products.
        #[cfg(target_arch = "x86_64")]
        ByteProducts::AvxVnni(_) => INTEGERS + offset,
        _ => offset,
    }
}

/// What the kernel of a level wants subtracted from the codes plus 8.
pub(super) fn weight_offset(level: Level) -> u8 {
    match level.byte_products() {
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Amx(_) => 8,
        _ => 0,
    }
}

/// Rows that the kernel of a level takes at most.
pub(super) fn rows(level: Level) -> usize {
    match level.byte_products() {
        ByteProducts::Portable => 1,
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx2(_) | ByteProducts::AvxVnni(_) => 4,
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx512Vnni(_) => 8,
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Amx(_) => 16,
    }
}
