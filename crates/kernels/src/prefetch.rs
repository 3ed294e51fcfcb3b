//! Asking for memory before it is needed. Nothing happens where the processor has no such instruction.

/// Elements of a cache line.
const fn line<T>() -> usize {
    64 / size_of::<T>()
}

/// Values that are read next, into the first-level cache.
#[inline(always)]
pub(crate) fn near<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(line::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes no memory; SSE is part of the target.
        unsafe { _mm_prefetch(line.as_ptr().cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, line::<T>());
}

/// Values that are read soon, into the second-level cache.
#[inline(always)]
pub(crate) fn far<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(line::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch changes no memory; SSE is part of the target.
        unsafe { _mm_prefetch(line.as_ptr().cast(), _MM_HINT_T1) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, line::<T>());
}

/// `count` values that are written soon, from `start`, which may be any address.
#[inline(always)]
pub(crate) fn for_writing(start: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..count).step_by(line::<f32>()) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch changes no memory and no address is wrong; SSE is part of the target.
        unsafe { _mm_prefetch(start.wrapping_add(offset).cast(), _MM_HINT_ET0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, count);
}
