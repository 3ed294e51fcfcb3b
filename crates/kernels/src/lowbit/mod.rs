//! Products with weights of few bits: weights of 4 or 8 bits that brisk makes when it loads a model
//! ([`quantized`]), the 4-bit layers of published files with their low-rank branch ([`int4`]), and
//! what both share.

#[cfg(target_arch = "x86_64")]
pub(crate) mod codes;
pub mod int4;
pub mod quantized;
