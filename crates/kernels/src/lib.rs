//! Compute on plain slices: matrix products, convolutions, attention, norms and activations,
//! each with its backward pass where training uses it.
//!
//! This crate knows no models and no tensor library. Every function takes slices and sizes,
//! checks that they fit (a mismatch is a caller's bug and panics with both numbers), and runs on
//! rayon's current thread pool. Feature maps are channels-last (`[batch, height, width, channels]`),
//! token matrices are row-major `[rows, channels]`. For a given input and thread count the results
//! are bit-identical from run to run.
//!
//! Each fast kernel has a plain statement in [`mod@reference`], which the tests hold it to.
//!
//! The instruction set is chosen at run time by [`simd`]: the loops are written once and compiled
//! for AVX2 + FMA and for the portable baseline; wider sets join there.
//!
//! ```
//! // y = x wᵀ + b for one row of two features and three outputs
//! let mut y = [0.0f32; 3];
//! brisk_kernels::linear::forward(&[1.0, 2.0], 2, &[1., 0., 0., 1., 1., 1.], 3, Some(&[0.5; 3]), &mut y);
//! assert_eq!(y, [1.5, 2.5, 3.5]);
//! ```

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod buffer;
pub mod ceiling;
#[cfg(target_arch = "x86_64")]
mod codes;
pub mod conv;
pub mod depthwise;
pub mod epilogue;
pub mod finite;
pub mod gemm;
pub mod glu_mb_conv;
pub mod grouped;
pub mod int4;
pub mod linear;
pub mod linear_attention;
pub mod logits;
pub mod math;
mod microkernel;
pub mod modulate;
pub mod norm;
pub mod packed;
pub mod packed_attention;
pub mod parallel;
mod prefetch;
pub mod quantised;
pub mod reference;
pub mod resample;
pub mod rotary;
mod scratch;
pub mod shortcut;
pub mod simd;
mod small_product;
pub mod winograd;
