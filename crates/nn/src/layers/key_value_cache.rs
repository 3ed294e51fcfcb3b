//! Keys and values of one sequence, a slot a position, overwritten in place.

use crate::error::{Error, Result};
use crate::ops::{self, DeviceCache};
use crate::tensor::{Location, Tensor};
use brisk_kernels::packed_attention::{Ends, PackedKeyValues};

/// Rotated keys and values of every layer for one sequence of at most [`capacity`](Self::capacity)
/// positions, packed for attention. Writing positions again replaces them: a prefix cache, a dual
/// cache and the exact cache of block-causal models differ only in what they write again.
#[derive(Debug)]
pub struct KeyValueCache {
    layers: Layers,
    capacity: usize,
}

/// Where they lie.
#[derive(Debug)]
enum Layers {
    Host(Vec<PackedKeyValues>),
    /// On a card, in its type.
    Device(DeviceCache),
}

impl Layers {
    fn count(&self) -> usize {
        match self {
            Self::Host(layers) => layers.len(),
            Self::Device(cache) => cache.layers(),
        }
    }
}

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyValueType {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to f16, in half the memory; values beyond 65504 become infinite.
    F16,
}

impl KeyValueType {
    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl KeyValueCache {
    /// Empty slots for `capacity` positions of `layers` layers with `heads` key heads of `dim`
    /// channels each.
    pub fn new(layers: usize, capacity: usize, heads: usize, dim: usize) -> Self {
        Self::kept_as(KeyValueType::F32, layers, capacity, heads, dim)
    }

    /// As [`Self::new`], with keys and values kept as `kind`.
    pub fn kept_as(
        kind: KeyValueType,
        layers: usize,
        capacity: usize,
        heads: usize,
        dim: usize,
    ) -> Self {
        let layer = |_| match kind {
            KeyValueType::F32 => PackedKeyValues::new(capacity, heads, dim),
            KeyValueType::F16 => PackedKeyValues::half(capacity, heads, dim),
        };
        Self {
            layers: Layers::Host((0..layers).map(layer).collect()),
            capacity,
        }
    }

    /// As [`Self::new`], where `location` says; a card keeps keys and values in its own type.
    ///
    /// # Errors
    /// Memory that ran out.
    pub fn at(
        location: &Location,
        layers: usize,
        capacity: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self> {
        let Some(device) = location.device() else {
            return Ok(Self::new(layers, capacity, heads, dim));
        };
        Ok(Self {
            layers: Layers::Device(DeviceCache::new(device, layers, capacity, heads, dim)?),
            capacity,
        })
    }

    /// One layer that holds `keys` and `values` `[1, tokens, heads·dim]`, for a pass without a cache.
    ///
    /// # Errors
    /// Tensors of another shape.
    pub fn of(keys: &Tensor, values: &Tensor, heads: usize, dim: usize) -> Result<Self> {
        let capacity = keys.dim(1)?;
        if let (Some(k), Some(v)) = (keys.device(), values.device()) {
            if keys.dims() != [1, capacity, heads * dim] || values.dims() != keys.dims() {
                return Err(Error::Shape(format!(
                    "keys {:?} and values {:?} for {heads} heads of {dim} channels",
                    keys.dims(),
                    values.dims()
                )));
            }
            return Ok(Self {
                layers: Layers::Device(DeviceCache::of(k.tensor(), v.tensor(), heads, dim)),
                capacity,
            });
        }
        let mut cache = Self::new(1, capacity, heads, dim);
        cache.write(0, 0, keys, values)?;
        Ok(cache)
    }

    /// Number of positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts `keys` and `values` `[1, tokens, heads·dim]` of `layer` into the slots from `start`.
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
        let (capacity, count) = (self.capacity, self.layers.count());
        if layer >= count {
            return Err(absent(count, layer));
        }
        let wanted = match &self.layers {
            Layers::Host(layers) => layers[layer].width(),
            Layers::Device(cache) => cache.width(),
        };
        let (batch, tokens, width) = keys.dims3()?;
        let fits = batch == 1
            && width == wanted
            && values.dims() == keys.dims()
            && start.checked_add(tokens).is_some_and(|end| end <= capacity);
        if !fits {
            return Err(Error::Shape(format!(
                "keys {:?} and values {:?} for slots from {start} of {capacity} with {wanted} channels",
                keys.dims(),
                values.dims(),
            )));
        }
        match &mut self.layers {
            Layers::Host(layers) => ops::write_key_values(&mut layers[layer], start, keys, values),
            Layers::Device(cache) => cache.write(layer, start, keys, values),
        }
    }

    /// Attention of `queries` `[1, n, heads·dim]` to the first `end` slots of `layer`; `scale` is the
    /// factor of the products. To `[1, n, heads·dim]`; gradients end here.
    ///
    /// # Errors
    /// A layer or slots that do not exist, or heads that do not fit those of the keys.
    pub fn attend(
        &self,
        layer: usize,
        queries: &Tensor,
        heads: usize,
        end: usize,
        scale: f32,
    ) -> Result<Tensor> {
        self.attention(layer, queries, heads, Ends::Same(end), scale)
    }

    /// As [`Self::attend`], each query to as many slots as `ends` say of it; one that sees none gives zero.
    ///
    /// # Errors
    /// As [`Self::attend`]; another number of ends than of queries.
    pub fn attend_each(
        &self,
        layer: usize,
        queries: &Tensor,
        heads: usize,
        ends: &[usize],
        scale: f32,
    ) -> Result<Tensor> {
        self.attention(layer, queries, heads, Ends::Each(ends), scale)
    }

    fn attention(
        &self,
        layer: usize,
        queries: &Tensor,
        heads: usize,
        ends: Ends,
        scale: f32,
    ) -> Result<Tensor> {
        let cache = match &self.layers {
            Layers::Host(layers) => {
                let kept = layers.get(layer);
                let kept = kept.ok_or_else(|| absent(layers.len(), layer))?;
                return ops::packed_attention(queries, heads, kept, ends, scale);
            }
            Layers::Device(cache) if layer < cache.layers() => cache,
            Layers::Device(cache) => return Err(absent(cache.layers(), layer)),
        };
        let count = queries.dim(1)?;
        let ends = match ends {
            Ends::Same(end) => vec![end; count],
            Ends::Each(ends) => ends.to_vec(),
        };
        let end = ends.iter().copied().max().unwrap_or(0);
        if ends.len() != count || end > self.capacity {
            return Err(Error::Shape(format!(
                "{count} queries with {} ends up to {end}, for {} slots",
                ends.len(),
                self.capacity
            )));
        }
        cache.attend(layer, queries, heads, &ends, scale)
    }

    /// Attention of `queries` `[1, n, heads·dim]` to the first `end` slots of `layer` and, behind them, to
    /// `keys` and `values` `[1, tokens, heads·dim]`, which the cache does not keep: for what nothing comes
    /// after. `room` is a cache of one layer with space for both, and is written over.
    ///
    /// # Errors
    /// As [`Self::write`] and [`Self::attend`].
    #[allow(clippy::too_many_arguments)] // what is kept, what is not, and the sizes of one attention
    pub fn attend_beyond(
        &self,
        layer: usize,
        end: usize,
        (keys, values): (&Tensor, &Tensor),
        queries: &Tensor,
        heads: usize,
        scale: f32,
        room: &mut Self,
    ) -> Result<Tensor> {
        let (Layers::Host(layers), Layers::Host(rooms)) = (&self.layers, &mut room.layers) else {
            return Err(Error::Config(
                "attention beyond a cache runs on the CPU only; use --device cpu".to_owned(),
            ));
        };
        let kept = layers.get(layer);
        let kept = kept.ok_or_else(|| absent(layers.len(), layer))?;
        let Some(all) = rooms.first_mut() else {
            return Err(absent(0, 0));
        };
        let fits = all.heads() == kept.heads()
            && all.dim() == kept.dim()
            && all.is_alike(kept)
            && end <= kept.capacity().min(all.capacity());
        if !fits {
            return Err(Error::Shape(format!(
                "{end} slots of {} with {} channels for room of {} with {}, kept alike",
                kept.capacity(),
                kept.width(),
                all.capacity(),
                all.width()
            )));
        }
        all.take(kept, end);
        room.write(0, end, keys, values)?;
        room.attend(0, queries, heads, end + keys.dim(1)?, scale)
    }
}

fn absent(count: usize, layer: usize) -> Error {
    Error::Shape(format!(
        "the cache holds {count} layers, layer {layer} was asked for"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, values.len(), 1)).unwrap()
    }

    fn attended(cache: &KeyValueCache, end: usize) -> f32 {
        // A query of zero weighs all slots alike.
        let o = cache.attend(1, &rows(&[0.0]), 1, end, 1.0).unwrap();
        o.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn slots_are_replaced_in_place() {
        let mut cache = KeyValueCache::new(2, 4, 1, 1);
        let all = rows(&[1.0, 2.0, 3.0, 4.0]);
        cache.write(1, 0, &all, &all).unwrap();
        assert!((attended(&cache, 4) - 2.5).abs() < 1e-6);
        let new = rows(&[7.0, 8.0]);
        cache.write(1, 1, &new, &new).unwrap();
        assert!((attended(&cache, 3) - 16.0 / 3.0).abs() < 1e-5);
        assert!(cache.write(1, 3, &new, &new).is_err(), "past the end");
        assert!(cache.write(2, 0, &new, &new).is_err(), "no such layer");
        assert!(cache.attend(2, &new, 1, 1, 1.0).is_err());
        assert!(cache.attend(1, &new, 1, 5, 1.0).is_err(), "past the end");
        let wide = all.reshape((1, 2, 2)).unwrap();
        assert!(cache.write(1, 0, &wide, &wide).is_err(), "other channels");
        assert!(cache.attend(1, &wide, 1, 4, 1.0).is_err());
    }

    #[test]
    fn queries_see_as_much_as_they_are_told() {
        let mut cache = KeyValueCache::new(1, 3, 1, 1);
        let all = rows(&[1.0, 3.0, 8.0]);
        cache.write(0, 0, &all, &all).unwrap();
        let queries = rows(&[0.0; 4]);
        let found = cache.attend_each(0, &queries, 1, &[2, 0, 1, 3], 1.0);
        let found = found.unwrap().flatten_all().unwrap().to_vec1::<f32>();
        assert_eq!(found.unwrap(), [2.0, 0.0, 1.0, 4.0]);
        for ends in [&[2, 0, 1][..], &[2, 0, 1, 4]] {
            assert!(cache.attend_each(0, &queries, 1, ends, 1.0).is_err());
        }
    }

    #[test]
    fn what_is_not_kept_is_attended_to_all_the_same() {
        let width = 6;
        let some = |tokens: usize, seed: usize| {
            let values = (0..tokens * width).map(|i| ((i + seed) as f32 * 0.7).sin());
            Tensor::from_vec(values.collect(), (1, tokens, width)).unwrap()
        };
        let (first, second) = (some(19, 1), some(21, 2));
        let mut kept = KeyValueCache::new(1, 23, 2, 3);
        kept.write(0, 0, &first, &first).unwrap();
        let mut whole = KeyValueCache::new(1, 40, 2, 3);
        whole.write(0, 0, &first, &first).unwrap();
        whole.write(0, 19, &second, &second).unwrap();
        let wanted = whole.attend(0, &second, 2, 40, 0.5).unwrap();
        let mut room = KeyValueCache::new(1, 44, 2, 3);
        for _ in 0..2 {
            let new = (&second, &second);
            let found = kept.attend_beyond(0, 19, new, &second, 2, 0.5, &mut room);
            let found = found.unwrap().to_vec3::<f32>().unwrap();
            assert_eq!(found, wanted.to_vec3::<f32>().unwrap());
        }
        let mut small = KeyValueCache::new(1, 39, 2, 3);
        let new = (&second, &second);
        assert!(
            kept.attend_beyond(0, 19, new, &second, 2, 0.5, &mut small)
                .is_err()
        );
        assert!(
            kept.attend_beyond(0, 24, new, &second, 2, 0.5, &mut room)
                .is_err()
        );
        assert!(
            kept.attend_beyond(1, 19, new, &second, 2, 0.5, &mut room)
                .is_err()
        );
        let mut other = KeyValueCache::new(1, 44, 3, 2);
        assert!(
            kept.attend_beyond(0, 19, new, &second, 2, 0.5, &mut other)
                .is_err()
        );
    }

    #[test]
    fn a_pass_without_a_cache_attends_alike() {
        let (k, v) = (rows(&[0.5, -1.0, 2.0]), rows(&[3.0, 4.0, 5.0]));
        let q = rows(&[0.3, -0.7]);
        let of = KeyValueCache::of(&k, &v, 1, 1).unwrap();
        let found = of.attend(0, &q, 1, 3, 1.0).unwrap();
        let options = ops::AttentionOptions::new(1, 1);
        let wanted = ops::attention(&q, &k, &v, &options).unwrap();
        let difference = (found - wanted).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
    }
}
