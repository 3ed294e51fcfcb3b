//! Element types of stored tensors.

use std::fmt;

/// The element type of a stored tensor, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8-bit float of 4 exponent and 3 mantissa bits, without infinities (`e4m3fn`).
    F8E4M3,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed byte.
    I8,
    /// Unsigned byte.
    U8,
    /// One byte, zero or not.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F8E4M3 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name safetensors uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// From the name safetensors uses. The error says why that type is not read.
    pub fn from_safetensors(name: &str) -> Result<Self, String> {
        Ok(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            float8 if float8.starts_with("F8_") => {
                return Err(format!(
                    "8-bit floats ({float8}) are not supported; convert the tensor to BF16"
                ));
            }
            narrow if narrow.starts_with("F4") || narrow.starts_with("F6_") => {
                return Err(format!(
                    "packed low-bit floats ({narrow}) are not supported; convert the tensor to BF16"
                ));
            }
            known @ ("U16" | "U32" | "U64" | "C64") => {
                return Err(format!("element type {known} is not supported"));
            }
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(format!("unknown element type {other:?}"));
            }
        })
    }

    /// True for the float types.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3
        )
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Elements of a shape, `None` when the product overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero makes the product zero whatever comes after, so overflow is looked for without it too.
    let nonzero = shape
        .iter()
        .filter(|&&size| size != 0)
        .try_fold(1usize, |product, &size| product.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { nonzero })
}

/// Bytes of a tensor, `None` when they overflow.
pub(crate) fn byte_count(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    element_count(shape)?.checked_mul(dtype.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dtype; 11] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::F8E4M3,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U8,
        Dtype::Bool,
    ];

    #[test]
    fn names_go_round() {
        for dtype in ALL {
            assert_eq!(Dtype::from_safetensors(dtype.name()), Ok(dtype));
        }
    }

    #[test]
    fn unread_types_are_refused_by_name() {
        for name in ["F8_E5M2", "F8_E8M0", "F4", "U16", "nonsense"] {
            assert!(Dtype::from_safetensors(name).unwrap_err().contains(name));
        }
        assert!(
            Dtype::from_safetensors("F8_E5M2")
                .unwrap_err()
                .contains("8-bit floats")
        );
    }

    #[test]
    fn overflow_is_seen_even_behind_a_zero() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[3, 0, 5]), Some(0));
        assert_eq!(element_count(&[usize::MAX, 2]), None);
        assert_eq!(element_count(&[0, usize::MAX, 2]), None);
        assert_eq!(byte_count(Dtype::F64, &[usize::MAX / 4]), None);
    }
}
