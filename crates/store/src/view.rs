//! One tensor's bytes, and the trait of everything that holds tensors.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::dtype::{byte_count, element_count};
use crate::{Dtype, Error, Result};

/// A tensor's bytes: row-major, little endian, borrowed where the file allows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `product(shape) * dtype.size()` bytes.
    pub data: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// Number of elements; an error when `data` and `shape` disagree.
    pub fn elements(&self) -> Result<usize> {
        let expected = byte_count(self.dtype, &self.shape);
        match (expected, element_count(&self.shape)) {
            (Some(bytes), Some(elements)) if bytes == self.data.len() => Ok(elements),
            _ => Err(Error::Invalid(format!(
                "a {} tensor of shape {:?} does not fit its {} bytes",
                self.dtype,
                self.shape,
                self.data.len()
            ))),
        }
    }

    /// All elements as f32, row-major. Wide integers and F64 are rounded; Bool gives 0 and 1.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.elements()?;
        let data = &self.data;
        Ok(match self.dtype {
            Dtype::F64 => convert(data, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F32 => convert(data, f32::from_le_bytes),
            Dtype::F16 => convert(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => convert(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F8E4M3 => convert(data, |bytes: [u8; 1]| e4m3_to_f32(bytes[0])),
            Dtype::I64 => convert(data, |bytes| i64::from_le_bytes(bytes) as f32),
            Dtype::I32 => convert(data, |bytes| i32::from_le_bytes(bytes) as f32),
            Dtype::I16 => convert(data, |bytes| i16::from_le_bytes(bytes).into()),
            Dtype::I8 => convert(data, |bytes| i8::from_le_bytes(bytes).into()),
            Dtype::U8 => convert(data, |bytes: [u8; 1]| bytes[0].into()),
            Dtype::Bool => convert(data, |bytes: [u8; 1]| f32::from(u8::from(bytes[0] != 0))),
        })
    }

    /// All elements of an integer or Bool tensor as i64; floats are an error.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        self.elements()?;
        let data = &self.data;
        Ok(match self.dtype {
            Dtype::I64 => convert(data, i64::from_le_bytes),
            Dtype::I32 => convert(data, |bytes| i32::from_le_bytes(bytes).into()),
            Dtype::I16 => convert(data, |bytes| i16::from_le_bytes(bytes).into()),
            Dtype::I8 => convert(data, |bytes| i8::from_le_bytes(bytes).into()),
            Dtype::U8 => convert(data, |bytes: [u8; 1]| bytes[0].into()),
            Dtype::Bool => convert(data, |bytes: [u8; 1]| i64::from(bytes[0] != 0)),
            float => {
                return Err(Error::Invalid(format!(
                    "expected a tensor of integers, found {float} of shape {:?}",
                    self.shape
                )));
            }
        })
    }

    /// The same tensor with its own copy of the bytes.
    pub fn into_owned(self) -> TensorView<'static> {
        TensorView {
            dtype: self.dtype,
            shape: self.shape,
            data: Cow::Owned(self.data.into_owned()),
        }
    }
}

/// The value of an `e4m3fn` byte: sign, 4 exponent bits of bias 7, 3 mantissa bits; no infinities, and
/// only all ones mean NaN.
pub fn e4m3_to_f32(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

fn convert<const SIZE: usize, T>(data: &[u8], element: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    data.as_chunks::<SIZE>()
        .0
        .iter()
        .map(|bytes| element(*bytes))
        .collect()
}

/// Anything that holds named tensors.
pub trait TensorSource: Send + Sync {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;

    /// Type and shape, without touching tensor data; `None` when there is no such tensor.
    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)>;

    /// The tensor itself; `None` when there is no such tensor.
    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>>;

    /// The file that holds the tensor (or would hold it), for messages.
    fn origin(&self, name: &str) -> String;

    /// Says that the tensor has been copied and its bytes will hardly be asked for again, so that a
    /// mapped file need not stay in memory. Viewing it again stays possible.
    fn forget(&self, _name: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dtype: Dtype, shape: &[usize], data: &[u8]) -> TensorView<'static> {
        TensorView {
            dtype,
            shape: shape.to_vec(),
            data: Cow::Owned(data.to_vec()),
        }
    }

    #[test]
    fn every_type_becomes_f32() {
        let cases: [(Dtype, Vec<u8>, f32); 10] = [
            (Dtype::F64, 2.5f64.to_le_bytes().to_vec(), 2.5),
            (Dtype::F32, (-3.25f32).to_le_bytes().to_vec(), -3.25),
            (Dtype::F16, f16::from_f32(0.5).to_le_bytes().to_vec(), 0.5),
            (
                Dtype::BF16,
                bf16::from_f32(-1.5).to_le_bytes().to_vec(),
                -1.5,
            ),
            (Dtype::I64, (-7i64).to_le_bytes().to_vec(), -7.0),
            (Dtype::I32, 9i32.to_le_bytes().to_vec(), 9.0),
            (Dtype::I16, (-300i16).to_le_bytes().to_vec(), -300.0),
            (Dtype::I8, vec![0xff], -1.0),
            (Dtype::U8, vec![0xff], 255.0),
            (Dtype::Bool, vec![2], 1.0),
        ];
        for (dtype, data, expected) in cases {
            assert_eq!(
                view(dtype, &[1], &data).to_f32().unwrap(),
                [expected],
                "{dtype}"
            );
        }
    }

    #[test]
    fn not_a_number_passes_this_layer() {
        let values = view(Dtype::F32, &[1], &f32::NAN.to_le_bytes())
            .to_f32()
            .unwrap();
        assert!(values[0].is_nan());
    }

    #[test]
    fn a_shape_that_lies_is_an_error() {
        assert!(view(Dtype::F32, &[2], &[0; 4]).to_f32().is_err());
        assert!(
            view(Dtype::F32, &[usize::MAX, 2], &[0; 4])
                .to_f32()
                .is_err()
        );
    }

    #[test]
    fn integers_only_from_integers() {
        assert_eq!(view(Dtype::I8, &[2], &[1, 0xfe]).to_i64().unwrap(), [1, -2]);
        assert!(view(Dtype::F32, &[1], &[0; 4]).to_i64().is_err());
    }
}
