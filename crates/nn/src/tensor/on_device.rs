//! A tensor of a card, under the methods of all tensors.

use std::fmt;

use brisk_cuda::ops::{self, Binary};
use brisk_cuda::{Device, Element};
use candle_core::{DType, Device as HostDevice, Shape, Tensor as HostTensor};
use half::{bf16, f16};

use super::Tensor;
use crate::error::{Error, Result};

/// Values on a card, without gaps.
#[derive(Clone)]
pub(crate) struct OnDevice {
    tensor: brisk_cuda::Tensor,
    shape: Shape,
}

impl fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensor.fmt(f)
    }
}

impl From<brisk_cuda::Tensor> for OnDevice {
    fn from(tensor: brisk_cuda::Tensor) -> Self {
        let shape = Shape::from(tensor.dims());
        Self { tensor, shape }
    }
}

impl From<brisk_cuda::Tensor> for Tensor {
    fn from(tensor: brisk_cuda::Tensor) -> Self {
        OnDevice::from(tensor).into()
    }
}

impl OnDevice {
    pub(crate) fn upload(tensor: &HostTensor, device: &Device) -> Result<Self> {
        let dims = tensor.dims();
        let flat = tensor.flatten_all()?;
        let uploaded = match tensor.dtype() {
            DType::F32 => device.upload(&flat.to_vec1::<f32>()?, dims)?,
            DType::BF16 => device.upload_bf16(&flat.to_vec1::<bf16>()?, dims)?,
            DType::F16 => {
                let values: Vec<f16> = flat.to_vec1()?;
                let wide: Vec<f32> = values.into_iter().map(f16::to_f32).collect();
                device.upload(&wide, dims)?
            }
            DType::U32 => device.upload_u32(&flat.to_vec1::<u32>()?, dims)?,
            other => {
                return Err(Error::Config(format!(
                    "a card keeps floats and indices, not {other:?}"
                )));
            }
        };
        Ok(uploaded.into())
    }

    /// The values in ordinary memory, floats as f32.
    pub(crate) fn host(&self) -> Result<HostTensor> {
        self.refuse_not_finite()?;
        Ok(match self.tensor.element() {
            Element::U32 => {
                HostTensor::from_vec(self.tensor.to_u32()?, &self.shape, &HostDevice::Cpu)?
            }
            _ => HostTensor::from_vec(self.tensor.to_f32()?, &self.shape, &HostDevice::Cpu)?,
        })
    }

    /// See [`Tensor::signed_bytes`].
    pub(crate) fn signed_bytes(&self) -> Result<Vec<u8>> {
        let bytes = ops::signed_bytes(&self.tensor)?;
        self.refuse_not_finite()?;
        Ok(bytes)
    }

    /// An error where a check that was queued met a value that is not finite.
    fn refuse_not_finite(&self) -> Result<()> {
        match self.device().first_not_finite()? {
            Some((stage, layer)) => Err(Error::NonFinite { stage, layer }),
            None => Ok(()),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        self.tensor.device()
    }

    /// As the card's operations take it.
    pub(crate) fn tensor(&self) -> &brisk_cuda::Tensor {
        &self.tensor
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn dtype(&self) -> DType {
        match self.tensor.element() {
            Element::F32 => DType::F32,
            Element::Bf16 => DType::BF16,
            Element::U32 => DType::U32,
            Element::U8 => DType::U8,
        }
    }

    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let element = match dtype {
            DType::F32 => Element::F32,
            DType::BF16 => Element::Bf16,
            DType::U32 => Element::U32,
            other => {
                return Err(Error::Config(format!(
                    "a card keeps floats and indices, not {other:?}"
                )));
            }
        };
        Ok(ops::cast(&self.tensor, element)?.into())
    }

    pub(crate) fn reshape(&self, shape: &Shape) -> Result<Self> {
        Ok(self.tensor.reshape(shape.dims())?.into())
    }

    pub(crate) fn narrow(&self, dim: usize, start: usize, length: usize) -> Result<Self> {
        Ok(ops::narrow(&self.tensor, dim, start, length)?.into())
    }

    pub(crate) fn squeeze(&self, dim: usize) -> Result<Self> {
        let mut dims = self.shape.dims().to_vec();
        // As candle: another side stays.
        if dims[dim] == 1 {
            dims.remove(dim);
        }
        self.reshape(&dims.into())
    }

    pub(crate) fn unsqueeze(&self, dim: usize) -> Result<Self> {
        let mut dims = self.shape.dims().to_vec();
        dims.insert(dim, 1);
        self.reshape(&dims.into())
    }

    pub(crate) fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let mut order: Vec<usize> = (0..self.shape.rank()).collect();
        order.swap(a, b);
        self.permute(&order)
    }

    pub(crate) fn permute(&self, order: &[usize]) -> Result<Self> {
        Ok(ops::permute(&self.tensor, order)?.into())
    }

    pub(crate) fn broadcast_as(&self, shape: &Shape) -> Result<Self> {
        Ok(ops::broadcast(&self.tensor, shape.dims())?.into())
    }

    pub(crate) fn pad_with_zeros(&self, dim: usize, before: usize, behind: usize) -> Result<Self> {
        let mut dims = self.shape.dims().to_vec();
        dims[dim] += before + behind;
        let padded = self.device().zeros(&dims, self.tensor.element())?;
        ops::write_slice(&padded, &self.tensor, dim, before)?;
        Ok(padded.into())
    }

    /// Indices may lie on the host.
    pub(crate) fn index_select(&self, indices: &Tensor, dim: usize) -> Result<Self> {
        let dims = self.shape.dims();
        if dim == 1 && dims[0] == 1 {
            // Rows of the only matrix.
            let rows = self.reshape(&dims[1..].into())?.index_select(indices, 0)?;
            return rows.unsqueeze(0);
        }
        if dim != 0 {
            return Err(Error::Config(
                "index_select on a card takes rows only; run this part with --device cpu"
                    .to_owned(),
            ));
        }
        let indices = indices.to(&self.device().clone().into())?;
        let indices = indices.on_device("index_select")?;
        Ok(ops::gather(&self.tensor, &indices.tensor)?.into())
    }

    pub(crate) fn cat(parts: &[&Self], dim: usize) -> Result<Self> {
        let parts: Vec<_> = parts.iter().map(|part| &part.tensor).collect();
        Ok(ops::concatenate(&parts, dim)?.into())
    }

    pub(crate) fn slice_set(&self, source: &Self, dim: usize, start: usize) -> Result<()> {
        Ok(ops::write_slice(&self.tensor, &source.tensor, dim, start)?)
    }

    pub(crate) fn affine(&self, factor: f64, addend: f64) -> Result<Self> {
        Ok(ops::affine(&self.tensor, factor as f32, addend as f32)?.into())
    }

    pub(crate) fn arithmetic(&self, operation: Binary, other: &Self) -> Result<Self> {
        Ok(ops::binary(operation, &self.tensor, &other.tensor)?.into())
    }
}
