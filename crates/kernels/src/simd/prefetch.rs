//! Asking for memory before it is needed. Nothing happens where the processor has no such instruction.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0 as WRITE, _MM_HINT_T0 as NEAR, _MM_HINT_T1 as FAR};

#[cfg(not(target_arch = "x86_64"))]
const WRITE: i32 = 0;
#[cfg(not(target_arch = "x86_64"))]
const NEAR: i32 = 1;
#[cfg(not(target_arch = "x86_64"))]
const FAR: i32 = 2;

/// How far ahead to ask, in bytes, where memory is read in order and little is computed with it: what a
/// core can wait for at once.
pub(crate) const AHEAD: usize = 2048;

/// Bytes that a cache fetches together.
const LINE: usize = 64;

/// Asks for `bytes` bytes from `start`, which may be any address.
#[inline(always)]
fn fetch<const HINT: i32>(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..bytes).step_by(LINE) {
        let line = start.wrapping_add(offset).cast();
        // SAFETY: a prefetch changes no memory and no address is wrong; SSE is part of the target.
        unsafe { std::arch::x86_64::_mm_prefetch::<HINT>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, bytes, LINE);
}

/// Values that are read next, into the first-level cache.
#[inline(always)]
pub(crate) fn near<T>(values: &[T]) {
    fetch::<NEAR>(values.as_ptr().cast(), size_of_val(values));
}

/// Values that are read soon, into the second-level cache.
#[inline(always)]
pub(crate) fn far<T>(values: &[T]) {
    fetch::<FAR>(values.as_ptr().cast(), size_of_val(values));
}

/// The lines that lie `distance` bytes past those of `values`, into the first-level cache: what is read
/// next where memory is read in order. There need not be any such memory.
#[inline(always)]
pub(crate) fn past<T>(values: *const T, distance: usize) {
    let start = values.cast::<u8>().wrapping_add(distance);
    fetch::<NEAR>(start, size_of::<T>());
}

/// `count` values that are written soon, from `start`, which may be any address.
#[inline(always)]
pub(crate) fn for_writing(start: *const f32, count: usize) {
    fetch::<WRITE>(start.cast(), count * size_of::<f32>());
}
