//! Transformers whose blocks are quantized by SVDQuant, in nunchaku's layout or diffusers'.

mod layout;

use std::sync::Arc;

use brisk_nn::{Activations, WeightsBuilder};
use brisk_store::TensorSource;

use super::{SanaConfig, native};
use crate::Result;
use crate::low_bit;

pub use layout::SanaLayout;

/// A transformer's parameters from a file in the plain layout, the authors' or a quantized one;
/// `activations` says how inputs of quantized layers are rounded.
///
/// # Errors
/// A quantized file for another model, or one that contradicts itself.
pub fn parameters(
    config: &SanaConfig,
    source: Arc<dyn TensorSource>,
    activations: Activations,
) -> Result<WeightsBuilder> {
    let source = native::plain_names(source)?;
    low_bit::parameters(Box::new(SanaLayout::of(config)), source, activations)
}

/// Made-up 4-bit layers in place of those that SVDQuant quantizes, to measure speed.
pub fn with_random_low_bit(
    config: &SanaConfig,
    weights: WeightsBuilder,
    activations: Activations,
) -> WeightsBuilder {
    low_bit::with_random(Box::new(SanaLayout::of(config)), weights, activations)
}
