//! Frozen weights of linear layers in 4 or 8 bits.

use crate::error::{Error, Result};
use brisk_kernels::quantized::{Bits, QuantizedMatrix};
use brisk_store::{Dtype, TensorSource};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How linear layers keep their frozen weights. Everything else (embeddings, norms, biases, routers)
/// stays as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// As they are stored: f32, bf16 or f16.
    #[default]
    None,
    /// 8.5 bits a value: 8-bit codes, a bf16 scale for every 32 inputs of an output.
    EightBit,
    /// 4.5 bits a value: 4-bit codes, a bf16 scale for every 32 inputs of an output.
    FourBit,
}

impl Quantization {
    /// Every kind, by name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("8bit", Self::EightBit),
        ("4bit", Self::FourBit),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EightBit => "8bit",
            Self::FourBit => "4bit",
        }
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// Another name; the message lists the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            Error::Config(format!(
                "quantization {name:?}: expected none, 8bit or 4bit"
            ))
        })
    }

    /// Bytes that a value of a linear layer takes; `stored` where it is kept.
    pub fn bytes_per_value(self, stored: f64) -> f64 {
        match self {
            Self::None => stored,
            Self::EightBit => 8.5 / 8.0,
            Self::FourBit => 4.5 / 8.0,
        }
    }

    pub(crate) fn bits(self) -> Option<Bits> {
        match self {
            Self::None => None,
            Self::EightBit => Some(Bits::Eight),
            Self::FourBit => Some(Bits::Four),
        }
    }
}

/// A quantized weight with its name.
type Named = (String, Arc<QuantizedMatrix>);

/// Quantized weights to keep from one load to the next: those of an earlier load, which are taken
/// instead of quantizing again, and those that this load made.
#[derive(Default)]
pub struct QuantizedWeights {
    earlier: Option<Arc<dyn TensorSource>>,
    made: Mutex<Vec<Named>>,
}

impl fmt::Debug for QuantizedWeights {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let earlier = self.earlier.is_some();
        write!(f, "QuantizedWeights {{ earlier: {earlier} }}")
    }
}

impl QuantizedWeights {
    /// Takes tensors of bytes, named as the weights they stand for, which another load
    /// [made](Self::with_made) from the same weights.
    pub fn from_source(earlier: Arc<dyn TensorSource>) -> Self {
        Self {
            earlier: Some(earlier),
            made: Mutex::default(),
        }
    }

    /// Calls `work` with name and bytes of every weight that was quantized.
    pub fn with_made<R>(&self, work: impl FnOnce(&[(&str, &[u8])]) -> R) -> R {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let listed: Vec<(&str, &[u8])> = made
            .iter()
            .map(|(name, matrix)| (name.as_str(), matrix.stored()))
            .collect();
        work(&listed)
    }

    /// The weight of an earlier load; none where there was no earlier load.
    pub(crate) fn earlier(
        &self,
        name: &str,
        (outputs, inputs): (usize, usize),
        bits: Bits,
    ) -> Result<Option<QuantizedMatrix>> {
        let Some(source) = &self.earlier else {
            return Ok(None);
        };
        let wrong = |problem: String| {
            Error::Config(format!(
                "{}: quantized weight {name:?}: {problem}; the file does not belong to this model",
                source.origin(name)
            ))
        };
        let Some(view) = source.view(name)? else {
            return Err(wrong("is missing".to_owned()));
        };
        let expected = QuantizedMatrix::stored_length(outputs, inputs, bits);
        if view.dtype != Dtype::U8 || Some(view.data.len()) != expected {
            return Err(wrong(format!(
                "{} {} bytes, expected {expected:?} U8 for [{outputs}, {inputs}]",
                view.dtype,
                view.data.len()
            )));
        }
        let matrix = QuantizedMatrix::from_stored(view.data.to_vec(), outputs, inputs, bits);
        source.forget(name);
        Ok(matrix)
    }

    pub(crate) fn keep(&self, name: String, matrix: &Arc<QuantizedMatrix>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push((name, matrix.clone()));
    }
}
