//! The tensors below one prefix of a file.

use std::borrow::Cow;

use brisk_store::{Dtype, TensorSource};

use crate::HalfType;
use crate::error::{Error, Result};

/// As stored tensors have a 16-bit type.
pub fn dtype_of(half: HalfType) -> Dtype {
    match half {
        HalfType::Bf16 => Dtype::BF16,
        HalfType::F16 => Dtype::F16,
    }
}

/// The 16-bit type of a stored tensor; none where it has another type.
pub fn half_of(dtype: Dtype) -> Option<HalfType> {
    match dtype {
        Dtype::BF16 => Some(HalfType::Bf16),
        Dtype::F16 => Some(HalfType::F16),
        _ => None,
    }
}

/// The tensors of one layer.
pub(crate) struct Reader<'a> {
    pub source: &'a dyn TensorSource,
    pub prefix: &'a str,
}

impl Reader<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub fn has(&self, name: &str) -> bool {
        self.source.info(&self.path(name)).is_some()
    }

    pub fn error(&self, name: &str, problem: String) -> Error {
        let tensor = self.path(name);
        Error::Tensor {
            file: self.source.origin(&tensor),
            tensor,
            problem,
        }
    }

    pub fn info(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        self.source.info(&self.path(name)).ok_or_else(|| {
            self.error(
                name,
                "it is missing; the layer is quantized, so the file is incomplete or of another format"
                    .to_owned(),
            )
        })
    }

    /// The 16-bit type of a tensor.
    pub fn half(&self, name: &str) -> Result<HalfType> {
        let (dtype, _) = self.info(name)?;
        half_of(dtype)
            .ok_or_else(|| self.error(name, format!("found {dtype}, expected BF16 or F16")))
    }

    /// Bytes of a tensor of one of `dtypes` and this shape.
    pub fn bytes(&self, name: &str, dtypes: &[Dtype], shape: &[usize]) -> Result<Cow<'_, [u8]>> {
        let (dtype, found) = self.info(name)?;
        if !dtypes.contains(&dtype) || found != shape {
            let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
            return Err(self.error(
                name,
                format!(
                    "found {dtype} of shape {found:?}, expected {} of shape {shape:?}",
                    names.join(" or ")
                ),
            ));
        }
        let view = self.source.view(&self.path(name))?;
        let view = view.ok_or_else(|| self.error(name, "it is missing".to_owned()))?;
        view.elements()?;
        Ok(view.data)
    }

    /// Finite 16-bit values.
    pub fn halves(&self, name: &str, half: HalfType, shape: &[usize]) -> Result<Vec<f32>> {
        let bytes = self.bytes(name, &[dtype_of(half)], shape)?;
        let widen = |bytes: &[u8; 2]| half.widen(u16::from_le_bytes(*bytes));
        let values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(widen).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(place) => Err(self.error(
                name,
                format!("value {place} is {}; the file is damaged", values[place]),
            )),
            None => Ok(values),
        }
    }
}
