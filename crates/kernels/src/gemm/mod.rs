//! Matrix products.
//!
//! [`multiply`] takes views of any two matrices: training, backward passes and small products use it.
//! [`packed`] takes weights that were packed once, when they were loaded; convolutions, attention and
//! layers over low-bit weights run on its parts:
//!
//! ```text
//! packed       rows of an input into tasks of threads, and what follows them
//! product      a block of rows times panels of a packed weight: tiles, or the microkernel
//! amx          ... in tile registers
//! panels       ... of panels from anywhere (a weight, a cache of keys, codes that are widened)
//! microkernel  a few rows times one or two panels, in vector registers
//! stored       ... of values as they are stored
//! matrix       packed weights
//! layout       how operands of all these lie in memory
//! ```
//!
//! Each line needs only those below it.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod layout;
pub mod linear;
mod matrix;
pub(crate) mod microkernel;
pub mod packed;
pub(crate) mod panels;
pub(crate) mod product;
pub(crate) mod small;
mod stored;
mod strided;
pub(crate) mod widen;

pub use strided::{Threads, View, multiply};
