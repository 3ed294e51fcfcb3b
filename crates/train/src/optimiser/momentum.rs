//! The momentum of [`Came`](super::Came): in f32, or in blocks of 8 bits (SANA-1.5, arXiv 2501.18427).

use brisk_store::{Dtype, OutTensor, TensorSource};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::tensors::{self, NamedArray};

/// What a block of [`EightBit`] is cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockRule {
    /// `block_size` elements in a row, as the paper says.
    #[default]
    Elements,
    /// `block_size` whole rows of the first dimension, as the authors' code does: a matrix of up to so many rows is
    /// one block.
    Rows,
}

/// How momentum is kept in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EightBit {
    /// Elements or rows of a block that share a scale and a least value.
    pub block_size: usize,
    /// Which of the two.
    pub blocks: BlockRule,
    /// Parameters of more elements than this, of those with factored moments, are kept in 8 bits.
    pub min_8bit_size: usize,
}

impl Default for EightBit {
    fn default() -> Self {
        EightBit {
            block_size: 2048,
            blocks: BlockRule::Elements,
            min_8bit_size: 16_384,
        }
    }
}

/// A named array of whole numbers below 256.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCodes {
    /// Full name.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<u8>,
}

impl NamedCodes {
    /// For a weight file.
    pub fn to_tensor(&self) -> OutTensor<'_> {
        OutTensor {
            name: self.name.clone(),
            dtype: Dtype::U8,
            shape: self.shape.clone(),
            data: Cow::Borrowed(&self.values),
        }
    }
}

/// Values in blocks, each between its least value and that plus 255 scales.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blocks {
    codes: Vec<u8>,
    scales: Vec<f32>,
    minima: Vec<f32>,
    /// Elements of a block; the last may have fewer.
    length: usize,
}

impl Blocks {
    fn zeros(count: usize, length: usize) -> Self {
        let blocks = count.div_ceil(length);
        Self {
            codes: vec![0; count],
            scales: vec![0.0; blocks],
            minima: vec![0.0; blocks],
            length,
        }
    }

    fn decode(&self) -> Vec<f32> {
        let numbers = self.scales.iter().zip(&self.minima);
        let blocks = self.codes.chunks(self.length).zip(numbers);
        blocks
            .flat_map(|(codes, (scale, least))| {
                codes
                    .iter()
                    .map(move |code| f32::from(*code) * scale + least)
            })
            .collect()
    }

    fn encode(&mut self, values: &[f32]) {
        let numbers = self.scales.iter_mut().zip(&mut self.minima);
        let blocks = values
            .chunks(self.length)
            .zip(self.codes.chunks_mut(self.length));
        for ((values, codes), (scale, least)) in blocks.zip(numbers) {
            let (low, high) = values
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
                    (low.min(*value), high.max(*value))
                });
            (*least, *scale) = (low, (high - low) / 255.0);
            for (code, value) in codes.iter_mut().zip(values) {
                // All values of a block may be one, and then there is nothing to divide by.
                *code = match *scale > 0.0 {
                    true => ((value - low) / *scale).round_ties_even().clamp(0.0, 255.0) as u8,
                    false => 0,
                };
            }
        }
    }
}

/// The momentum of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Momentum {
    Full(Vec<f32>),
    Blocks(Blocks),
}

impl Momentum {
    /// Zeros for a parameter of this shape, whose moments are factored or not.
    pub(super) fn zeros(dims: &[usize], factored: bool, eight_bit: Option<EightBit>) -> Self {
        let count: usize = dims.iter().product();
        match eight_bit {
            Some(settings) if factored && count > settings.min_8bit_size => {
                let row = count / dims[0];
                let length = match settings.blocks {
                    BlockRule::Elements => settings.block_size,
                    BlockRule::Rows => settings.block_size.saturating_mul(row),
                };
                Self::Blocks(Blocks::zeros(count, length.max(1)))
            }
            _ => Self::Full(vec![0.0; count]),
        }
    }

    /// Calls `change` with the values in full, and keeps what it made of them.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut [f32])) {
        match self {
            Self::Full(values) => change(values),
            Self::Blocks(blocks) => {
                let mut values = blocks.decode();
                change(&mut values);
                blocks.encode(&values);
            }
        }
    }

    /// Adds what is kept in f32.
    pub(super) fn arrays(&self, name: &str, shape: &[usize], arrays: &mut Vec<NamedArray>) {
        let mut push = |name: String, shape: Vec<usize>, values: &Vec<f32>| {
            let values = values.clone();
            arrays.push(NamedArray {
                name,
                shape,
                values,
            });
        };
        match self {
            Self::Full(values) => push(format!("exp_avg.{name}"), shape.to_vec(), values),
            Self::Blocks(blocks) => {
                for (part, values) in [("scale", &blocks.scales), ("min", &blocks.minima)] {
                    push(format!("exp_avg.{name}.{part}"), vec![values.len()], values);
                }
            }
        }
    }

    /// What is kept in 8 bits.
    pub(super) fn codes(&self, name: &str, shape: &[usize]) -> Option<NamedCodes> {
        match self {
            Self::Full(_) => None,
            Self::Blocks(blocks) => Some(NamedCodes {
                name: format!("exp_avg.{name}.data"),
                shape: shape.to_vec(),
                values: blocks.codes.clone(),
            }),
        }
    }

    pub(super) fn load(
        &mut self,
        source: &dyn TensorSource,
        name: &str,
        shape: &[usize],
    ) -> Result<()> {
        match self {
            Self::Full(values) => {
                *values = tensors::read(source, &format!("exp_avg.{name}"), shape)?
            }
            Self::Blocks(blocks) => {
                let read = |part: &str, count: usize| {
                    tensors::read(source, &format!("exp_avg.{name}.{part}"), &[count])
                };
                blocks.scales = read("scale", blocks.scales.len())?;
                blocks.minima = read("min", blocks.minima.len())?;
                blocks.codes = read_codes(source, &format!("exp_avg.{name}.data"), shape)?;
            }
        }
        Ok(())
    }
}

/// The values of a stored array of bytes of a known shape.
fn read_codes(source: &dyn TensorSource, name: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let refuse = |message: String| Error::Checkpoint {
        path: source.origin(name).into(),
        message,
    };
    let Some(view) = source.view(name)? else {
        return Err(refuse(format!("tensor {name} is missing")));
    };
    if view.shape != shape || view.dtype != Dtype::U8 {
        return Err(refuse(format!(
            "tensor {name} is {} of shape {:?}, expected U8 of shape {shape:?}",
            view.dtype, view.shape
        )));
    }
    Ok(view.data.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_value_returns_to_within_half_a_step_and_a_constant_block_as_it_was() {
        let mut values = Rng::new(4).normals(250);
        values[100..200].fill(-0.125);
        let mut blocks = Blocks::zeros(250, 100);
        assert_eq!(blocks.decode(), [0.0; 250]);
        blocks.encode(&values);
        let found = blocks.decode();
        assert_eq!(&found[100..200], &values[100..200]);
        for (index, (found, value)) in found.iter().zip(&values).enumerate() {
            let step = blocks.scales[index / 100];
            assert!(
                (found - value).abs() <= 0.501 * step,
                "{index}: {found} {value} {step}"
            );
        }
        // Both ends of a block are its own values.
        assert!(blocks.codes[..100].contains(&0) && blocks.codes[..100].contains(&255));
    }

    #[test]
    fn blocks_are_elements_or_rows_and_small_or_whole_parameters_stay_in_full() {
        let count = |dims: &[usize], factored: bool, blocks: BlockRule| {
            let settings = EightBit {
                block_size: 8,
                blocks,
                min_8bit_size: 60,
            };
            match Momentum::zeros(dims, factored, Some(settings)) {
                Momentum::Full(_) => 0,
                Momentum::Blocks(blocks) => blocks.scales.len(),
            }
        };
        assert_eq!(count(&[10, 7], true, BlockRule::Elements), 9);
        assert_eq!(count(&[10, 7], true, BlockRule::Rows), 2);
        assert_eq!(count(&[10, 6], true, BlockRule::Rows), 0);
        assert_eq!(count(&[10, 1, 3, 3], false, BlockRule::Rows), 0);
    }
}
