//! Plain f32 slices to and from variables and weight files.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use brisk_nn::{Tensor, Weights};
use brisk_store::{Dtype, MemorySource, OutTensor, TensorSource};
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor as HostTensor, Var};
use half::bf16;

use crate::error::{Error, Result};

/// A named f32 array.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedArray {
    /// Full name.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

impl NamedArray {
    /// A copy of a variable.
    pub fn of_variable(name: &str, variable: &Var) -> Result<NamedArray> {
        Ok(NamedArray {
            name: name.to_owned(),
            shape: variable.dims().to_vec(),
            values: values(&variable.as_tensor().into())?,
        })
    }

    /// For a weight file, in f32.
    pub fn to_f32_tensor(&self) -> OutTensor<'_> {
        OutTensor {
            name: self.name.clone(),
            dtype: Dtype::F32,
            shape: self.shape.clone(),
            data: Cow::Borrowed(bytemuck::cast_slice(&self.values)),
        }
    }

    /// For a weight file, rounded to bf16.
    pub fn to_bf16_tensor(&self) -> OutTensor<'static> {
        OutTensor {
            name: self.name.clone(),
            dtype: Dtype::BF16,
            shape: self.shape.clone(),
            data: Cow::Owned(to_bf16_bytes(&self.values)),
        }
    }
}

/// Weights that nothing changes, with gradients to the inputs of their layers: where trainings compute on a card, there.
pub(crate) fn frozen(source: Arc<dyn TensorSource>) -> Weights {
    match brisk_nn::training_device().is_cpu() {
        true => Weights::from_source(source),
        false => Weights::trainable(Some(source), 0),
    }
}

fn to_bf16_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
        .collect()
}

/// All values of a tensor, row-major.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

/// Calls `read` with the values of a contiguous f32 tensor, row-major, copied from a card only.
pub(crate) fn with_values<R>(tensor: &HostTensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Ok(read(&tensor.flatten_all()?.to_vec1::<f32>()?));
    };
    let start = layout.start_offset();
    let values = storage.as_slice::<f32>()?;
    Ok(read(&values[start..start + layout.shape().elem_count()]))
}

struct Update<F>(Mutex<F>);

impl<F: FnMut(&mut [f32]) + Send> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("training needs f32 variables");
        };
        let start = layout.start_offset();
        let mut change = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (*change)(&mut values[start..start + layout.shape().elem_count()]);
        Ok(())
    }
}

/// Changes a variable in place; `change` gets its values, row-major.
pub(crate) fn update(variable: &Var, mut change: impl FnMut(&mut [f32]) + Send) -> Result<()> {
    if !variable.device().is_cpu() {
        let mut values = values(&variable.as_tensor().into())?;
        change(&mut values);
        return set(variable, values);
    }
    Ok(variable
        .as_tensor()
        .inplace_op1(&Update(Mutex::new(change)))?)
}

/// Copies of all variables.
pub(crate) fn copy_variables(parameters: &[(String, Var)]) -> Result<Vec<NamedArray>> {
    parameters
        .iter()
        .map(|(name, variable)| NamedArray::of_variable(name, variable))
        .collect()
}

/// Writes values into a variable of the same size.
pub(crate) fn set(variable: &Var, values: Vec<f32>) -> Result<()> {
    Ok(variable.set(&HostTensor::from_vec(
        values,
        variable.dims(),
        variable.device(),
    )?)?)
}

/// The values of a stored f32 array of a known shape.
pub(crate) fn read(source: &dyn TensorSource, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let refuse = |message: String| Error::Checkpoint {
        path: source.origin(name).into(),
        message,
    };
    let view = source
        .view(name)?
        .ok_or_else(|| refuse(format!("tensor {name} is missing")))?;
    if view.shape != shape {
        return Err(refuse(format!(
            "tensor {name} has shape {:?}, expected {shape:?}",
            view.shape
        )));
    }
    if !view.dtype.is_float() {
        return Err(refuse(format!(
            "tensor {name} holds whole numbers ({}), expected F32",
            view.dtype
        )));
    }
    let values = view.to_f32()?;
    if values.iter().any(|value| value.is_nan()) {
        return Err(refuse(format!("tensor {name} holds NaN")));
    }
    Ok(values)
}

/// A weight source in memory that holds the arrays whose names begin with `prefix`, without it,
/// optionally rounded to bf16.
pub(crate) fn memory_source(
    arrays: &[NamedArray],
    prefix: &str,
    rounded: bool,
) -> Result<Arc<dyn TensorSource>> {
    let entries = arrays
        .iter()
        .filter_map(|array| {
            let name = array.name.strip_prefix(prefix)?.to_owned();
            let (dtype, bytes) = if rounded {
                (Dtype::BF16, to_bf16_bytes(&array.values))
            } else {
                (
                    Dtype::F32,
                    bytemuck::cast_slice::<f32, u8>(&array.values).to_vec(),
                )
            };
            Some((name, dtype, array.shape.clone(), bytes))
        })
        .collect();
    Ok(Arc::new(MemorySource::new(entries)?))
}
