//! What is asked of a transformer whose layers may have 4-bit weights in its file.

use brisk_nn::{Activations, InputWatcher, Quantization, WeightsBuilder};

use crate::error::{Error, Result};
use crate::options::{Options, keys};

/// How inputs of 4-bit layers are to be rounded, where it is said.
pub(crate) fn activations(asked: &Options) -> Option<Activations> {
    asked.get(&keys::ACTIVATIONS).map(|name| match &*name {
        "4" => Activations::Four,
        "full" => Activations::Full,
        _ => Activations::Eight,
    })
}

/// Refuses what goes with such layers where there are none, and what goes with full weights where there are.
pub(crate) fn check(
    activations: Option<Activations>,
    quantization: Quantization,
    is_low_bit: bool,
) -> Result<()> {
    if activations.is_some() && !is_low_bit {
        return Err(Error::request(
            keys::ACTIVATIONS.name(),
            "has no effect on a transformer without 4-bit layers",
        ));
    }
    if quantization != Quantization::None && is_low_bit {
        return Err(Error::request(
            keys::QUANTIZE_TRANSFORMER.name(),
            "the transformer's file has 4-bit weights already; load the full one",
        ));
    }
    Ok(())
}

/// Parameters whose layers' inputs are watched, where somebody watches.
pub(crate) fn watched(weights: WeightsBuilder, watcher: &Option<InputWatcher>) -> WeightsBuilder {
    match watcher {
        Some(watcher) => weights.watcher(watcher.clone()),
        None => weights,
    }
}
