//! One W4A16 layer as it is stored: 4-bit weights whose inputs are not rounded.

use std::borrow::Cow;

use brisk_store::{Dtype, OutTensor, TensorSource};

use crate::error::Result;
use crate::integer::{GROUP, Integers};
use crate::layout;
use crate::reader::{Reader, dtype_of};
use crate::{HalfType, Int4Weight};

/// One W4A16 layer: value = code·scale + zero in groups of 64 inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Awq {
    /// Outputs, a multiple of 4.
    pub outputs: usize,
    /// Inputs, a multiple of 64.
    pub inputs: usize,
    /// Type of scales, zeros and bias.
    pub half: HalfType,
    /// `[outputs, inputs]`, 0 to 15.
    pub codes: Vec<u8>,
    /// `[rows, outputs]`: a row for each group, and rows of zeros that some files end with.
    pub scales: Vec<f32>,
    /// As `scales`.
    pub zeros: Vec<f32>,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

impl Awq {
    /// Reads the layer whose tensors are called `{prefix}.qweight` and so on.
    ///
    /// # Errors
    /// As [`Record::read`](crate::Record::read).
    pub fn read(source: &dyn TensorSource, prefix: &str) -> Result<Self> {
        let reader = Reader { source, prefix };
        let (_, shape) = reader.info("qweight")?;
        let problem = || {
            format!(
                "found shape {shape:?}, expected [outputs / 4, inputs / 2] with inputs a multiple of {GROUP}"
            )
        };
        let [quarter, half_inputs] = shape[..] else {
            return Err(reader.error("qweight", problem()));
        };
        let (outputs, inputs) = (quarter.saturating_mul(4), half_inputs.saturating_mul(2));
        if outputs == 0 || inputs == 0 || !inputs.is_multiple_of(GROUP) {
            return Err(reader.error("qweight", problem()));
        }
        let qweight = reader.bytes("qweight", &[Dtype::I32], &shape)?;
        let codes = layout::unpack_codes(&qweight, outputs, inputs, |n, k| {
            layout::awq_place(n, k, inputs)
        });
        let (_, found) = reader.info("wscales")?;
        let half = reader.half("wscales")?;
        let (groups, rows) = (inputs / GROUP, found.first().copied().unwrap_or(0));
        if rows < groups || rows > groups.next_multiple_of(16) {
            let problem = format!(
                "found shape {found:?}, expected [{groups}, {outputs}] for groups of {GROUP} inputs"
            );
            return Err(reader.error("wscales", problem));
        }
        let scales = reader.halves("wscales", half, &[rows, outputs])?;
        let zeros = reader.halves("wzeros", half, &[rows, outputs])?;
        let bias = reader
            .has("bias")
            .then(|| reader.halves("bias", half, &[outputs]));
        Ok(Self {
            outputs,
            inputs,
            half,
            codes,
            scales,
            zeros,
            bias: bias.transpose()?,
        })
    }

    /// Rounds a weight `[outputs, inputs]` to nearest, symmetrically: codes −7 to 7 stored as 0 to 14.
    ///
    /// # Panics
    /// When sizes are not multiples of 4 and 64.
    pub fn round(weight: &[f32], inputs: usize, bias: Option<&[f32]>, half: HalfType) -> Self {
        let outputs = weight.len() / inputs;
        assert!(outputs.is_multiple_of(4));
        let integers = Integers::round(weight, inputs, GROUP, 7.0, half);
        let groups = inputs / GROUP;
        let mut scales = vec![0.0; groups * outputs];
        for (n, row) in integers.scales.chunks_exact(groups).enumerate() {
            for (g, scale) in row.iter().enumerate() {
                scales[g * outputs + n] = *scale;
            }
        }
        Self {
            outputs,
            inputs,
            half,
            codes: integers.codes.iter().map(|c| (c + 7) as u8).collect(),
            zeros: scales.iter().map(|s| half.round(-7.0 * s)).collect(),
            scales,
            bias: bias.map(|b| b.iter().map(|v| half.round(*v)).collect()),
        }
    }

    /// The layer's tensors, packed.
    pub fn tensors(&self, prefix: &str) -> Vec<OutTensor<'static>> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        let codes: Vec<i8> = self.codes.iter().map(|c| *c as i8).collect();
        let bytes = layout::pack_codes(&codes, outputs, inputs, |n, k| {
            layout::awq_place(n, k, inputs)
        });
        let tensor = |name: &str, dtype, shape: Vec<usize>, data: Vec<u8>| OutTensor {
            name: format!("{prefix}.{name}"),
            dtype,
            shape,
            data: Cow::Owned(data),
        };
        let half = |name: &str, shape: Vec<usize>, values: &[f32]| {
            tensor(name, dtype_of(self.half), shape, self.half.bytes(values))
        };
        let rows = self.scales.len() / outputs;
        let mut out = vec![
            tensor("qweight", Dtype::I32, vec![outputs / 4, inputs / 2], bytes),
            half("wscales", vec![rows, outputs], &self.scales),
            half("wzeros", vec![rows, outputs], &self.zeros),
        ];
        if let Some(bias) = &self.bias {
            out.push(half("bias", vec![outputs], bias));
        }
        out
    }

    /// The plain weight, `[outputs, inputs]`.
    pub fn weight(&self) -> Vec<f32> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let value = |index: usize| {
            let (n, group) = (index / inputs, index % inputs / GROUP);
            let place = group * outputs + n;
            f32::from(self.codes[index]) * self.scales[place] + self.zeros[place]
        };
        (0..self.codes.len()).map(value).collect()
    }

    /// The layer as it is computed: codes 0 to 15 become −8 to 7, and zeros move by 8 scales.
    pub fn into_weight(self) -> Int4Weight {
        let groups = self.inputs / GROUP;
        let grid = |values: &[f32]| -> Vec<f32> {
            let place = |i: usize| values[i % groups * self.outputs + i / groups];
            (0..self.outputs * groups).map(place).collect()
        };
        let scales = grid(&self.scales);
        let mut zeros = grid(&self.zeros);
        for (zero, scale) in zeros.iter_mut().zip(&scales) {
            *zero += 8.0 * scale;
        }
        Int4Weight {
            outputs: vec![self.outputs],
            inputs: self.inputs,
            codes: self.codes.into_iter().map(|code| code as i8 - 8).collect(),
            scales,
            zeros: Some(zeros),
            smooth: None,
            branch: None,
            bias: self.bias,
            half: self.half,
        }
    }
}
