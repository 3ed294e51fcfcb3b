//! Convolutions over channels-last maps: of any kernel as products over patches ([`forward`] and its
//! like), 3×3 ones with fewer products ([`winograd`]), of single channels ([`depthwise`]) and of groups of
//! them ([`grouped`]), and the block that puts two of 1×1 around a depthwise one ([`glu_mb_conv`]).

pub mod depthwise;
mod direct;
pub mod glu_mb_conv;
pub mod grouped;
pub mod pool;
pub mod winograd;

pub use direct::{ConvShape, backward_input, backward_weight, forward, forward_packed};
