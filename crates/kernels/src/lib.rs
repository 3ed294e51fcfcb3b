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
//! | module | what is in it |
//! |---|---|
//! | [`gemm`] | products of views, of packed weights ([`packed`]), of weights as checkpoints store them ([`linear`]) |
//! | [`lowbit`] | products with weights of 4 and 8 bits ([`quantized`]), and with those of SVDQuant ([`int4`]) |
//! | [`conv`] | convolutions: direct, Winograd's, depthwise, grouped |
//! | [`attention`] | softmax and linear attention, keys and values that stay packed, relative positions, windows, rotary embedding |
//! | [`pointwise`] | activations, norms, modulation, rearrangements, what follows a product |
//! | [`two_way`] | attention between the tokens of many prompts and one picture |
//! | [`simd`] | instruction sets, sizes of caches |
//!
//! The instruction set is chosen at run time by [`simd`]. Loops are written once and compiled for the
//! portable baseline, for AVX2 with FMA and for AVX-512. Products have kernels of their own: f32 for AVX2,
//! AVX-512 and AMX tiles, bytes for AVX2, AVX-VNNI, AVX-512 VNNI and (layers of SVDQuant) AMX tiles. aarch64
//! runs the portable kernels, which the compiler vectorises with NEON.
//!
//! ```
//! // y = x wᵀ + b for one row of two features and three outputs
//! let mut y = [0.0f32; 3];
//! brisk_kernels::linear::forward(&[1.0, 2.0], 2, &[1., 0., 0., 1., 1., 1.], 3, Some(&[0.5; 3]), &mut y);
//! assert_eq!(y, [1.5, 2.5, 3.5]);
//! ```

pub mod attention;
pub mod buffer;
pub mod conv;
pub mod gemm;
pub mod lowbit;
mod parallel;
pub mod pointwise;
pub mod reference;
mod scratch;
pub mod simd;
pub mod two_way;

pub use attention::{
    linear as linear_attention, packed as packed_attention, relative as relative_attention, rotary,
    window as window_attention,
};
pub use conv::{depthwise, glu_mb_conv, grouped, winograd};
pub use gemm::{linear, packed};
pub use lowbit::{int4, quantized};
pub use pointwise::{activation, epilogue, finite, logits, modulate, norm, resample, shortcut};
pub use simd::ceiling;
