//! Products with weights of few bits: weights of 4 or 8 bits that brisk makes when it loads a model
//! ([`quantised`]), and what they share with the 4-bit layers of published files.

#[cfg(target_arch = "x86_64")]
pub(crate) mod codes;
pub mod quantised;
