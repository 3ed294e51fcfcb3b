//! The two 16-bit types of scales and factors.

use half::{bf16, f16};

/// The 16-bit type of a layer's scales, factors and biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HalfType {
    /// bfloat16.
    #[default]
    Bf16,
    /// IEEE half.
    F16,
}

impl HalfType {
    /// The nearest value of the type.
    pub fn round(self, value: f32) -> f32 {
        self.widen(self.narrow(value))
    }

    /// The bits of the nearest value.
    pub fn narrow(self, value: f32) -> u16 {
        match self {
            Self::Bf16 => bf16::from_f32(value).to_bits(),
            Self::F16 => f16::from_f32(value).to_bits(),
        }
    }

    /// The value of some bits.
    pub fn widen(self, bits: u16) -> f32 {
        match self {
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
            Self::F16 => f16::from_bits(bits).to_f32(),
        }
    }

    /// The little-endian bytes of values, rounded to the type.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        let bytes = |value: &f32| self.narrow(*value).to_le_bytes();
        values.iter().flat_map(bytes).collect()
    }
}
