//! What happens to values, rows and maps by themselves: activations, norms, modulation, rearrangements,
//! and the steps that follow a product in the same pass.

pub mod activation;
pub mod epilogue;
pub mod finite;
pub mod group_norm;
pub mod logits;
pub(crate) mod math;
pub mod modulate;
pub mod norm;
pub mod resample;
pub mod shortcut;
pub mod windows;
