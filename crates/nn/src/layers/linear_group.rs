//! Linear layers that share their input.

use super::linear::{Linear, Watcher};
use crate::error::Result;
use crate::ops::{PackedInt4, PackedLinear};
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};
use std::ops::Range;

/// N linear layers that share their input, as those of queries, keys and values do. Where they were
/// quantized together they stay one, and the input is rounded once for all; on a card they are one product.
#[derive(Debug)]
pub struct LinearGroup<const N: usize>(Layers<N>);

#[derive(Debug)]
enum Layers<const N: usize> {
    Each([Linear; N]),
    Together(PackedInt4, Vec<Watcher>),
    /// On a card.
    SideBySide(PackedLinear),
}

impl<const N: usize> LinearGroup<N> {
    /// Reads the layers `names` below `weights`, each as [`Linear::load`] does.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub fn load(
        weights: &Weights,
        names: [&str; N],
        inputs: usize,
        outputs: [usize; N],
        bias: bool,
        init: Init,
    ) -> Result<Self> {
        let watchers = names.map(|name| Watcher::of(&weights.pp(name)));
        let layers = match weights.low_bit(&names, inputs, &outputs)? {
            None => {
                let each = names.iter().zip(outputs).map(|(name, outputs)| {
                    Linear::load(&weights.pp(name), inputs, outputs, bias, init)
                });
                each.collect::<Result<Vec<_>>>()?
            }
            Some(packed) if packed.len() == N => {
                let each = packed.into_iter().zip(watchers);
                each.map(|(layer, watcher)| Linear::low_bit(layer, watcher))
                    .collect()
            }
            Some(packed) => {
                let [packed] = <[_; 1]>::try_from(packed).expect("one for all, or one each");
                let watchers = watchers.into_iter().flatten().collect();
                return Ok(Self(Layers::Together(packed, watchers)));
            }
        };
        if let Some(joined) = Linear::side_by_side(&layers)? {
            return Ok(Self(Layers::SideBySide(joined)));
        }
        let layers = layers.try_into().expect("a layer for each name");
        Ok(Self(Layers::Each(layers)))
    }

    /// What each layer makes of `[.., inputs]`.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<[Tensor; N]> {
        self.forward_from(0, x)
    }

    /// As [`LinearGroup::forward`], for M layers from the one at `first` on.
    ///
    /// # Errors
    /// Sizes that do not fit.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn forward_from<const M: usize>(&self, first: usize, x: &Tensor) -> Result<[Tensor; M]> {
        let chosen: Range<usize> = first..first + M;
        let results = match &self.0 {
            Layers::Each(layers) => {
                let each = layers[chosen].iter().map(|layer| layer.forward(x));
                each.collect::<Result<Vec<_>>>()?
            }
            Layers::Together(packed, watchers) => {
                if let Some(watchers) = watchers.get(chosen.clone()) {
                    watchers.iter().for_each(|watcher| watcher.see(x));
                }
                packed.forward_each(chosen, x)?
            }
            Layers::SideBySide(joined) => joined.forward_parts(x, N, chosen)?,
        };
        Ok(results.try_into().expect("a result for each layer"))
    }
}
