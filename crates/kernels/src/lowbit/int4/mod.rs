//! The linear layer over 4-bit weights with a low-rank branch (SVDQuant):
//! `y = Q(x / smooth)·Wᵀ + (x·downᵀ)·upᵀ + bias`.
//!
//! Weights are integers −8..7 in groups of 64 inputs, each group with a scale. Activations are
//! rounded on the fly, per row and group, to 8 bits (the default), to 4 bits (as the engine that these
//! files were made for does) or not at all. With rounded activations a group is one integer product
//! (`tile.rs`); groups are added in f32.
//!
//! Layers that were quantized together, as those of queries, keys and values are, stay together from
//! [`Int4Weight`] to the product: one `down`, and the input is rounded once.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod forward;
mod half_type;
mod level;
mod linear;
mod operands;
mod tile;
mod weight;

use crate::gemm::layout::PANEL;
pub use forward::{forward, forward_each};
pub use half_type::HalfType;
pub use linear::Int4Linear;
pub use weight::{Branch, Int4Weight};

/// Inputs that share a scale.
pub const GROUP: usize = 64;

/// Bytes of a panel's group.
pub(crate) const GROUP_BYTES: usize = GROUP * PANEL / 2;

/// How activations are rounded before the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activations {
    /// To 8 bits.
    #[default]
    Eight,
    /// To 4 bits, with scales in the weight's 16-bit type.
    Four,
    /// Not at all; the weight is widened instead.
    Full,
}

#[cfg(test)]
mod tests;
