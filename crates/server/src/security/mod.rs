//! Who may ask for what: hosts, origins, keys, and how often. SECURITY.md says against whom.

mod gate;
mod hosts;
mod keys;
mod rates;

pub use gate::{Caller, cors, csrf, gate};
pub use hosts::Hosts;
pub use keys::Keys;
pub use rates::Rates;
