//! Reaching the values of candle tensors.

use crate::error::Error;
use crate::tensor::{Tensor, moved};
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor as HostTensor, bail};
use std::ops::Deref;

/// A tensor whose values are candle's.
pub(crate) trait Reach {
    /// What says that they are elsewhere.
    type Error;

    /// The tensor in ordinary memory, its values in the order of rows.
    fn at_hand(&self) -> std::result::Result<Self, Self::Error>
    where
        Self: Sized;

    /// The values and where in them the tensor lies.
    fn reach(&self) -> std::result::Result<(impl Deref<Target = Storage>, &Layout), Self::Error>;
}

impl Reach for HostTensor {
    type Error = candle_core::Error;

    fn at_hand(&self) -> Result<Self> {
        let tensor = self.contiguous()?;
        Ok(moved(&tensor, &candle_core::Device::Cpu)?.into_owned())
    }

    fn reach(&self) -> Result<(impl Deref<Target = Storage>, &Layout)> {
        Ok(self.storage_and_layout())
    }
}

impl Reach for Tensor {
    type Error = Error;

    fn at_hand(&self) -> std::result::Result<Self, Error> {
        self.in_order_at_hand()
    }

    fn reach(&self) -> std::result::Result<(impl Deref<Target = Storage>, &Layout), Error> {
        Ok(self.on_host("this operation")?.storage_and_layout())
    }
}

/// Whether a tensor is nothing but its values in ordinary memory: no gradient or tangent is asked of it.
pub(crate) fn is_plain(x: &Tensor) -> bool {
    !x.track_op() && !x.has_tangent() && x.device().is_none() && !x.is_accelerated()
}

/// The values of a contiguous f32 tensor on the CPU.
pub(crate) fn cpu_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        bail!("expected a tensor of f32 values; convert it with to_dtype first")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!(
            "expected a contiguous tensor, found strides {:?}",
            layout.stride()
        ),
    }
}

/// As [`cpu_slice`], from a tensor's storage on any device.
pub(crate) fn slice<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => cpu_slice(storage, layout),
        _ => bail!("this operation runs on the CPU only; move the tensor there first"),
    }
}

/// Evaluates a block in which each named tensor is the slice of its values.
macro_rules! with_slices {
    ([$($name:ident),+], $body:block) => {{
        #[allow(unused_imports)]
        use $crate::ops::storage::Reach as _;
        $(let $name = $name.at_hand()?;)+
        $(let $name = $crate::ops::storage::Reach::reach(&$name)?;)+
        $(let $name = $crate::ops::storage::slice(&$name.0, $name.1)?;)+
        $body
    }};
}
pub(crate) use with_slices;

/// A tensor that takes over `values`: candle's in a backward pass, else ours.
pub(crate) fn tensor<T: From<candle_core::Tensor>>(values: Vec<f32>, dims: &[usize]) -> Result<T> {
    let tensor = candle_core::Tensor::from_vec(values, dims, &candle_core::Device::Cpu)?;
    Ok(tensor.into())
}
