//! Keys and values of one sequence, a slot a position, overwritten in place.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Rotated keys and values of every layer for one sequence of at most [`capacity`](Self::capacity)
/// positions. Writing positions again replaces them: a prefix cache, a dual cache and the exact
/// cache of block-causal models differ only in what they write again.
#[derive(Debug)]
pub struct KeyValueCache {
    layers: Vec<(Tensor, Tensor)>,
    capacity: usize,
}

impl KeyValueCache {
    /// Empty slots for `capacity` positions of `layers` layers with `channels` channels of keys
    /// and of values.
    ///
    /// # Errors
    /// Memory for the slots cannot be had.
    pub fn new(layers: usize, capacity: usize, channels: usize) -> Result<Self> {
        let slots = || Tensor::zeros((1, capacity, channels), DType::F32, &Device::Cpu);
        Ok(Self {
            layers: (0..layers)
                .map(|_| Ok((slots()?, slots()?)))
                .collect::<Result<_>>()?,
            capacity,
        })
    }

    /// Number of positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts `keys` and `values` `[1, tokens, channels]` of `layer` into the slots from `start`.
    ///
    /// # Errors
    /// A layer or slots that do not exist, or another number of channels.
    pub fn write(
        &mut self,
        layer: usize,
        start: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        let (kept_keys, kept_values) = self.layer(layer)?;
        kept_keys.slice_set(&keys.contiguous()?, 1, start)?;
        kept_values.slice_set(&values.contiguous()?, 1, start)?;
        Ok(())
    }

    /// Keys and values `[1, end, channels]` of the first `end` slots of `layer`. They show later
    /// writes, so use them before the next one.
    ///
    /// # Errors
    /// A layer or slots that do not exist.
    pub fn read(&self, layer: usize, end: usize) -> Result<(Tensor, Tensor)> {
        let (keys, values) = self.layer(layer)?;
        Ok((keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?))
    }

    fn layer(&self, layer: usize) -> Result<&(Tensor, Tensor)> {
        self.layers.get(layer).ok_or_else(|| {
            Error::Shape(format!(
                "the cache holds {} layers, layer {layer} was asked for",
                self.layers.len()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_replaced_in_place() {
        let mut cache = KeyValueCache::new(2, 4, 1).unwrap();
        let row = |values: &[f32]| Tensor::from_slice(values, (1, values.len(), 1), &Device::Cpu);
        let all = row(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        cache.write(1, 0, &all, &all).unwrap();
        let new = row(&[7.0, 8.0]).unwrap();
        cache.write(1, 1, &new, &new).unwrap();
        let (keys, values) = cache.read(1, 3).unwrap();
        let listed: Vec<f32> = keys.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(listed, [1.0, 7.0, 8.0]);
        assert_eq!(values.dims(), [1, 3, 1]);
        assert!(cache.write(1, 3, &new, &new).is_err(), "past the end");
        assert!(cache.read(2, 1).is_err());
    }
}
