//! Values of 16 bits as f32.

use crate::simd::simd_dispatch;
use half::slice::HalfFloatSliceExt;

/// A 16-bit float that can be widened to f32.
pub trait Half: Copy + Sync {
    /// Writes the f32 values of `from` to `to`; both have the same length.
    fn widen(from: &[Self], to: &mut [f32])
    where
        Self: Sized;
}

impl Half for half::bf16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        widen_bf16(from, to);
    }
}

impl Half for half::f16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

simd_dispatch! {
    fn widen_bf16(from: &[half::bf16], to: &mut [f32]) {
        for (t, f) in to.iter_mut().zip(from) {
            *t = f32::from_bits((f.to_bits() as u32) << 16);
        }
    }
}
