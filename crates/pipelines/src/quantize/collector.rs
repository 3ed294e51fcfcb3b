//! Rows of what goes into layers while a model runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use brisk_nn::random::SplitMix64;
use brisk_nn::{InputWatcher, Tensor};
use brisk_quant::HalfType;
use brisk_store::{Dtype, OutTensor, write_safetensors};

use crate::error::{Error, Result};

/// Rows of a layer's input, drawn evenly from all that it has seen.
struct Reservoir {
    width: usize,
    seen: u64,
    random: SplitMix64,
    /// In bfloat16.
    rows: Vec<u16>,
}

impl Reservoir {
    /// A number below `bound`.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn take(&mut self, row: &[f32], most: usize) {
        let narrow = row.iter().map(|v| HalfType::Bf16.narrow(*v));
        self.seen += 1;
        if self.seen <= most as u64 {
            self.rows.extend(narrow);
            return;
        }
        let place = self.draw(self.seen) as usize;
        if place < most {
            let kept = &mut self.rows[place * self.width..][..self.width];
            kept.iter_mut()
                .zip(narrow)
                .for_each(|(to, from)| *to = from);
        }
    }
}

/// Keeps rows of the inputs of all layers that are to be quantized.
pub(super) struct Collector {
    most: usize,
    layers: Mutex<BTreeMap<String, Reservoir>>,
}

impl Collector {
    /// For layers by name and width of their input, up to `most` rows a layer.
    pub fn new(inputs: Vec<(String, usize)>, most: usize) -> Arc<Self> {
        let layers = inputs
            .into_iter()
            .enumerate()
            .map(|(index, (name, width))| {
                let reservoir = Reservoir {
                    width,
                    seen: 0,
                    random: SplitMix64::new(index as u64 * 16),
                    rows: Vec::new(),
                };
                (name, reservoir)
            });
        Arc::new(Self {
            most,
            layers: Mutex::new(layers.collect()),
        })
    }

    /// What [`Quantizable::watch`](super::Quantizable::watch) takes.
    pub fn watcher(self: &Arc<Self>) -> InputWatcher {
        let this = self.clone();
        Arc::new(move |name: &str, x: &Tensor| this.see(name, x))
    }

    fn see(&self, name: &str, x: &Tensor) {
        let mut layers = self.layers.lock().unwrap_or_else(|p| p.into_inner());
        let Some(layer) = layers.get_mut(name) else {
            return;
        };
        // A tensor that can't be read here is one that the layer refuses by itself.
        let values = x.flatten_all().and_then(|x| x.to_vec1::<f32>());
        for row in values.unwrap_or_default().chunks_exact(layer.width) {
            layer.take(row, self.most);
        }
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// A layer that saw nothing, or a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let layers = self.layers.lock().unwrap_or_else(|p| p.into_inner());
        let mut tensors = Vec::new();
        for (name, layer) in layers.iter() {
            let rows = layer.rows.len() / layer.width;
            if rows == 0 {
                return Err(Error::folder(
                    path.display().to_string(),
                    format!("layer {name} saw no input while the calibration prompts were run"),
                ));
            }
            tensors.push(OutTensor {
                name: name.clone(),
                dtype: Dtype::BF16,
                shape: vec![rows, layer.width],
                data: Cow::Owned(layer.rows.iter().flat_map(|v| v.to_le_bytes()).collect()),
            });
        }
        Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
    }
}
