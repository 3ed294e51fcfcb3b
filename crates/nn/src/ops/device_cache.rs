//! Keys and values of a sequence on a card.

use brisk_cuda::ops::{self, Attention};
use brisk_cuda::{Device, Tensor as DeviceTensor};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::tensor::Tensor;

/// Lists of indices that are kept: those of the layers of one pass.
const KEPT: usize = 4;

/// Rotated keys and values of every layer, a row a position, overwritten in place.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    /// Keys and values, `[1, capacity, heads·dim]`.
    layers: Vec<[DeviceTensor; 2]>,
    heads: usize,
    dim: usize,
    /// Indices that were uploaded last: all layers of a pass take the same.
    indices: Mutex<Vec<(Vec<u32>, DeviceTensor)>>,
}

impl DeviceCache {
    /// Zeros for `capacity` positions.
    pub(crate) fn new(
        device: &Device,
        layers: usize,
        capacity: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self> {
        let zeros = || device.zeros(&[1, capacity, heads * dim], device.element());
        let layers = (0..layers).map(|_| Ok([zeros()?, zeros()?]));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            heads,
            dim,
            indices: Mutex::default(),
        })
    }

    /// One layer of the keys and values themselves.
    pub(crate) fn of(keys: &DeviceTensor, values: &DeviceTensor, heads: usize, dim: usize) -> Self {
        Self {
            layers: vec![[keys.clone(), values.clone()]],
            heads,
            dim,
            indices: Mutex::default(),
        }
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    pub(crate) fn width(&self) -> usize {
        self.heads * self.dim
    }

    /// Puts keys and values, which were checked, into the slots of `layer` from `start`.
    pub(crate) fn write(
        &self,
        layer: usize,
        start: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        let (x, y) = (
            keys.on_device("write_keys")?,
            values.on_device("write_keys")?,
        );
        let first = start as u32;
        let slots: Vec<u32> = (first..first + keys.dim(1)? as u32).collect();
        let slots = self.uploaded(&slots)?;
        let [keys, values] = &self.layers[layer];
        Ok(ops::write_keys(
            x.tensor(),
            y.tensor(),
            &slots,
            keys,
            values,
        )?)
    }

    /// Attention of `queries` `[1, n, heads·dim]`, each to as many slots as `ends` say of it.
    pub(crate) fn attend(
        &self,
        layer: usize,
        queries: &Tensor,
        heads: usize,
        ends: &[usize],
        scale: f32,
    ) -> Result<Tensor> {
        let q = queries.on_device("attention")?.tensor();
        let [keys, values] = &self.layers[layer];
        let ends: Vec<u32> = ends.iter().map(|end| *end as u32).collect();
        let ends = self.uploaded(&ends)?;
        let how = Attention {
            heads,
            key_value_heads: self.heads,
            scale,
            softcap: None,
            causal: None,
            window: None,
            lengths: None,
            mask: None,
            ends: Some(&ends),
        };
        Ok(ops::attention(q, keys, values, &how)?.into())
    }

    /// Indices on the card.
    fn uploaded(&self, indices: &[u32]) -> Result<DeviceTensor> {
        let mut kept = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tensor)) = kept.iter().find(|(known, _)| known == indices) {
            return Ok(tensor.clone());
        }
        let device = self.layers[0][0].device();
        let tensor = device.upload_u32(indices, &[indices.len()])?;
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((indices.to_vec(), tensor.clone()));
        Ok(tensor)
    }
}
