//! Low-rank adapters, in the layout that diffusers and PEFT write.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use brisk_store::TensorSource;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// The adapters of one file. A layer `L` has `L.lora_A.weight` `[rank, inputs]` and
/// `L.lora_B.weight` `[outputs, rank]`, perhaps `L.alpha`, with or without `transformer.` before it.
pub(crate) struct Lora {
    file: Arc<dyn TensorSource>,
    scale: f32,
    unused: Mutex<BTreeSet<String>>,
}

/// Rank, `down` `[rank, inputs]` and `up` `[outputs, rank]`.
pub(crate) type Factors = (usize, Vec<f32>, Vec<f32>);

const DOWN: &str = ".lora_A.weight";

impl Lora {
    pub(crate) fn read(file: Arc<dyn TensorSource>, scale: f32) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::Config(format!(
                "the LoRA scale must be finite, not {scale}"
            )));
        }
        let names = file.names();
        let layers: BTreeSet<String> = names
            .iter()
            .filter_map(|n| n.strip_suffix(DOWN))
            .map(str::to_string)
            .collect();
        if layers.is_empty() {
            let origin = names.first().map(|n| file.origin(n)).unwrap_or_default();
            return Err(Error::Config(format!(
                "{origin} holds no LoRA tensors (names ending in {DOWN}); expected pytorch_lora_weights.safetensors as diffusers writes it"
            )));
        }
        Ok(Self {
            file,
            scale,
            unused: Mutex::new(layers),
        })
    }

    /// What to add to the weight at `path`, if the file adapts it.
    pub(crate) fn delta(&self, path: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let Some(layer) = path.strip_suffix(".weight") else {
            return Ok(None);
        };
        let (outputs, inputs) = (
            shape.first().copied().unwrap_or(0),
            shape.iter().skip(1).product(),
        );
        Ok(match self.pair(layer, outputs, inputs)? {
            Some((down, up, scale)) => Some((up.matmul(&down)? * scale)?.reshape(shape)?),
            None => None,
        })
    }

    /// Rank, `down` `[rank, inputs]` and `up` `[outputs, rank]` of what to add to the weight of
    /// `layer`, if the file adapts it; the scale is in `up`.
    pub(crate) fn factors(
        &self,
        layer: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<Factors>> {
        let Some((down, up, scale)) = self.pair(layer, outputs, inputs)? else {
            return Ok(None);
        };
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        Ok(Some((
            down.dim(0)?,
            values(&down)?,
            values(&(up * scale)?)?,
        )))
    }

    /// Both factors of a layer and their scale.
    fn pair(
        &self,
        layer: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<(Tensor, Tensor, f64)>> {
        let prefixed = format!("transformer.{layer}");
        let layer = [prefixed.as_str(), layer]
            .into_iter()
            .find(|l| self.file.info(&format!("{l}{DOWN}")).is_some());
        let Some(layer) = layer else { return Ok(None) };
        self.unused
            .lock()
            .unwrap_or_else(|p| p.into_inner())
            .remove(layer);
        let (down, up) = (format!("{layer}{DOWN}"), format!("{layer}.lora_B.weight"));
        let (down, down_shape) = self.matrix(&down)?;
        let (up, up_shape) = self.matrix(&up)?;
        let rank = down_shape[0];
        if up_shape != [outputs, rank] || inputs != down_shape[1] {
            return Err(Error::Config(format!(
                "LoRA for {layer}: A is {down_shape:?} and B is {up_shape:?}, but the layer is {:?} (outputs, inputs); the adapter belongs to another model",
                [outputs, inputs]
            )));
        }
        let alpha = match self.file.view(&format!("{layer}.alpha"))? {
            Some(view) => view.to_f32()?.first().copied().unwrap_or(rank as f32),
            None => rank as f32,
        };
        let scale = f64::from(self.scale * alpha / rank.max(1) as f32);
        Ok(Some((down, up, scale)))
    }

    fn matrix(&self, name: &str) -> Result<(Tensor, Vec<usize>)> {
        let view = self.file.view(name)?.ok_or_else(|| {
            Error::Config(format!(
                "the LoRA file lacks {name}; both halves of a pair are needed"
            ))
        })?;
        // 1×1 convolutions are stored with two trailing ones.
        let rows = view.shape.first().copied().unwrap_or(0);
        let shape = vec![rows, view.shape.iter().skip(1).product()];
        let values = view.to_f32()?;
        if !brisk_kernels::finite::all_finite(&values) {
            return Err(Error::Config(format!(
                "{name} of the LoRA file holds NaN or infinity"
            )));
        }
        Ok((Tensor::from_vec(values, shape.as_slice())?, shape))
    }

    /// An error naming the layers that no weight of the model matched.
    pub(crate) fn finish(&self) -> Result<()> {
        let unused = self.unused.lock().unwrap_or_else(|p| p.into_inner());
        match unused.first() {
            None => Ok(()),
            Some(first) => Err(Error::Config(format!(
                "the LoRA file adapts {} layers that this model does not have, such as {first}",
                unused.len()
            ))),
        }
    }
}
