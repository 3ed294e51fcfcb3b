//! Which networks stay in memory after the stage that needs them.

use crate::options::{Options, keys};
use crate::request::WeightBytes;

/// What the option `residency` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residency {
    /// All of them if they fill at most half of the free memory, else one at a time.
    #[default]
    Auto,
    /// All of them, for many requests in a row.
    KeepAll,
    /// Each is dropped before the next is loaded.
    OneAtATime,
}

impl Residency {
    /// As options ask for it.
    pub fn asked(options: &Options) -> Self {
        match options.get(&keys::RESIDENCY).as_deref() {
            Some("all") => Self::KeepAll,
            Some("one") => Self::OneAtATime,
            _ => Self::Auto,
        }
    }

    /// Whether networks of these sizes stay, with so many bytes free, where the system tells.
    pub fn keeps(self, weights: WeightBytes, available: Option<u64>) -> bool {
        match self {
            Self::KeepAll => true,
            Self::OneAtATime => false,
            Self::Auto => {
                weights.loaded == weights.all
                    || available.is_some_and(|available| weights.all <= available / 2)
            }
        }
    }
}
