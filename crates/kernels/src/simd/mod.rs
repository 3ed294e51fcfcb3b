//! Instruction sets, chosen at run time, and what else of the processor kernels ask for.
//!
//! A kernel's inner loop is written once, in plain Rust that the compiler can vectorise, inside
//! `simd_dispatch!`. The macro compiles it for AVX-512, for AVX2 with FMA and for the baseline of the
//! target, and calls the best that the processor has. Matrix products, which gain most, have a kernel of
//! their own for each `Level`.
//!
//! An instruction set is a type (`x86`): its value exists only where the processor was found to have the
//! instructions, and a level that needs them holds it. So a function that is given a level, or the value
//! itself, may run them.
//!
//! aarch64 runs the portable kernels; NEON is part of that target, so the compiler vectorises them with it.

pub(crate) mod cache;
pub mod ceiling;
mod denormals;
mod dispatch;
mod level;
pub(crate) mod prefetch;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub use denormals::flush_denormals;
pub(crate) use dispatch::simd_dispatch;
pub(crate) use level::{ByteProducts, Level, level};
pub use level::{check_environment, name};
