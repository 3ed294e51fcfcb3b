//! Seeds that nobody chose.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A seed below 2^53, which JavaScript and JSON readers keep exactly.
pub(super) fn drawn() -> u64 {
    // Every `RandomState` has keys of its own, drawn from the system.
    RandomState::new().build_hasher().finish() >> 11
}
