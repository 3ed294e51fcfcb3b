//! Named tensors from files and to files: inputs of a component, latents, codes, results.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brisk_store::{
    Dtype, MemorySource, OutTensor, TensorSource, TensorView, open_weights, write_safetensors,
};
use candle_core::DType;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Named tensors of one file, converted as they are asked for.
pub struct TensorFile {
    label: String,
    source: Arc<dyn TensorSource>,
}

impl TensorFile {
    /// Opens a safetensors or PyTorch file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            label: path.display().to_string(),
            source: open_weights(path)?,
        })
    }

    /// Tensors that no file holds: name, type, shape, little-endian values.
    ///
    /// # Errors
    /// When bytes do not fit a shape.
    pub fn made_up(tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Result<Self> {
        Ok(Self {
            label: "made-up inputs".to_owned(),
            source: Arc::new(MemorySource::new(tensors)?),
        })
    }

    /// All tensors, as a model's weights.
    pub fn source(&self) -> Arc<dyn TensorSource> {
        self.source.clone()
    }

    /// Every name, sorted.
    pub fn names(&self) -> Vec<String> {
        self.source.names()
    }

    /// Refuses tensors that are not among `known`.
    ///
    /// # Errors
    /// Names those that are not.
    pub fn check_names(&self, known: &[&str]) -> Result<()> {
        let mut unknown = self.names();
        unknown.retain(|name| !known.contains(&name.as_str()));
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::Shape(format!(
            "{} has tensors that are not taken: {} (expected {})",
            self.label,
            unknown.join(", "),
            known.join(", ")
        )))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>> {
        Ok(self.source.view(name)?)
    }

    fn required(&self, name: &str, rank: usize) -> Result<TensorView<'_>> {
        let Some(view) = self.view(name)? else {
            return Err(Error::Shape(format!(
                "{} has no tensor \"{name}\"; it holds {}",
                self.label,
                match self.names().join(", ") {
                    none if none.is_empty() => "no tensors".to_owned(),
                    names => names,
                }
            )));
        };
        if view.shape.len() != rank {
            return Err(self.wrong(
                name,
                &format!("has shape {:?}, expected {rank} dimensions", view.shape),
            ));
        }
        Ok(view)
    }

    /// Shape of a tensor of `rank` dimensions.
    ///
    /// # Errors
    /// When there is none of the name and rank.
    pub fn shape(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        Ok(self.required(name, rank)?.shape)
    }

    /// Bytes that one value of a tensor takes; 4 where the file lacks it.
    pub fn value_bytes(&self, name: &str) -> f64 {
        self.source
            .info(name)
            .map_or(4.0, |(dtype, _)| dtype.size() as f64)
    }

    fn wrong(&self, name: &str, problem: &str) -> Error {
        Error::Shape(format!("{}: tensor \"{name}\" {problem}", self.label))
    }

    /// Shape and f32 values of a tensor of `rank` dimensions.
    ///
    /// # Errors
    /// When there is none of the name and rank, it is empty, or a value is not finite.
    pub fn floats(&self, name: &str, rank: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let view = self.required(name, rank)?;
        let values = view.to_f32()?;
        if values.is_empty() {
            return Err(self.wrong(name, &format!("is empty (shape {:?})", view.shape)));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(self.wrong(name, "holds a value that is not finite"));
        }
        Ok((view.shape, values))
    }

    /// A tensor of `rank` dimensions as f32.
    ///
    /// # Errors
    /// As [`TensorFile::floats`].
    pub fn tensor(&self, name: &str, rank: usize) -> Result<Tensor> {
        let (shape, values) = self.floats(name, rank)?;
        Tensor::from_vec(values, shape)
    }

    /// Token ids `[B,T]`, each below `limit`.
    ///
    /// # Errors
    /// When there is no such matrix of whole numbers, it is empty, or an id is `limit` or more.
    pub fn ids(&self, name: &str, limit: usize) -> Result<(Vec<usize>, Vec<u32>)> {
        let view = self.required(name, 2)?;
        let values = view
            .to_i64()
            .map_err(|error| self.wrong(name, &error.to_string()))?;
        if values.is_empty() {
            return Err(self.wrong(name, &format!("is empty (shape {:?})", view.shape)));
        }
        let ids = values
            .into_iter()
            .map(|id| match u32::try_from(id) {
                Ok(small) if (small as usize) < limit => Ok(small),
                _ => Err(self.wrong(
                    name,
                    &format!("holds id {id}, outside the vocabulary 0..{limit}"),
                )),
            })
            .collect::<Result<_>>()?;
        Ok((view.shape, ids))
    }
}

/// Writes tensors, floats as f32 and ids as i64, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let tensors = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let (shape, flat) = (tensor.dims().to_vec(), tensor.contiguous()?.flatten_all()?);
            Ok(match tensor.dtype() {
                DType::U32 => ids(name, shape, &flat.to_vec1::<u32>()?),
                _ => floats(name, shape, &flat.to_vec1::<f32>()?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
}

/// An i64 tensor to write.
pub fn ids(name: &str, shape: Vec<usize>, values: &[u32]) -> OutTensor<'static> {
    let data = values
        .iter()
        .flat_map(|value| i64::from(*value).to_le_bytes())
        .collect();
    OutTensor {
        name: name.to_owned(),
        dtype: Dtype::I64,
        shape,
        data: Cow::Owned(data),
    }
}

/// An f32 tensor to write.
pub fn floats(name: &str, shape: Vec<usize>, values: &[f32]) -> OutTensor<'static> {
    let data = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    OutTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape,
        data: Cow::Owned(data),
    }
}
