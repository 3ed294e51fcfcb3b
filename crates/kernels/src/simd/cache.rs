//! Sizes of this machine's caches, by which work is cut.
//!
//! Only sizes that no result depends on may follow them: how many rows, tiles or lines a task takes,
//! never how a sum is cut.

use gemm_common::cache::CACHE_INFO;

/// The second-level cache of the machines that sizes of tasks were measured on.
const SECOND: usize = 1 << 20;
/// Their last-level cache.
const THIRD: usize = 32 << 20;

/// A size that suits a second-level cache of 1 MiB, for what this machine's has for each thread.
pub(crate) fn by_second_level(size: usize) -> usize {
    scaled(size, CACHE_INFO[1].cache_bytes, SECOND)
}

/// A size that suits a last-level cache of 32 MiB, for this machine's.
pub(crate) fn by_third_level(size: usize) -> usize {
    scaled(size, CACHE_INFO[2].cache_bytes, THIRD)
}

/// In proportion to a cache, from half to twice the size: what else limits a task grows along. A cache
/// of which nothing is known counts as the measured one.
fn scaled(size: usize, bytes: usize, measured: usize) -> usize {
    let bytes = if bytes == 0 { measured } else { bytes };
    size * bytes.clamp(measured / 2, 2 * measured) / measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_cache_within_bounds() {
        let size = |bytes| scaled(180, bytes, SECOND);
        assert_eq!(size(SECOND), 180);
        assert_eq!(size(0), 180, "an unknown cache");
        assert_eq!(size(5 << 18), 225);
        assert_eq!((size(1 << 18), size(1 << 19)), (90, 90));
        assert_eq!((size(2 << 20), size(64 << 20)), (360, 360));
        for size in [by_second_level(96), by_third_level(96)] {
            assert!((48..=192).contains(&size), "{size}");
        }
    }
}
