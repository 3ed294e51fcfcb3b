//! Linear layers in 8 bits with a branch of few columns: what SVDQuant's files become on a card (arXiv 2411.05007).
//!
//! Their 4-bit codes in groups of 64 inputs are re-coded to 8 bits with one scale an output, at load; rows of the input
//! get 8 bits and a scale each as they come. The branch sees the input as it is.

use half::bf16;

use super::copy::{cast, padded_width};
use super::few_bits::by_rows;
use super::steps::Steps;
use super::{device_of, within};
use crate::device::Device;
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Inputs of a step of the product.
const STEP: usize = 64;
/// Columns of a step of the branch.
const RANK: usize = 32;
/// Rows and columns of a block.
const TILE: usize = 128;
/// Inputs divide by so many in the branch.
const CHUNK: usize = 8;

/// What layers of one input share: `x·factors` is rounded, `x·downᵀ` goes to the branch.
#[derive(Clone, Copy, Debug)]
pub struct LowBitBranch<'a> {
    /// Width of the input.
    pub inputs: usize,
    /// `[inputs]`, one over what the input is smoothed by.
    pub factors: Option<&'a [f32]>,
    /// Width of the branch; 0: none.
    pub rank: usize,
    /// `[rank, inputs]`.
    pub down: &'a [f32],
}

/// What one of the layers has for itself.
#[derive(Clone, Copy, Debug)]
pub struct LowBitLayer<'a> {
    /// Width of the result.
    pub outputs: usize,
    /// `[outputs, groups·64]`, 4 bits each.
    pub codes: &'a [i8],
    /// `[outputs, groups]`.
    pub scales: &'a [f32],
    /// `[outputs, rank]`.
    pub up: &'a [f32],
}

/// Layers that share their input, on a device whose values are bf16.
#[derive(Clone, Debug)]
pub struct LowBitWeight {
    inputs: usize,
    factors: Option<Tensor>,
    /// `[rank, inputs]`, both filled with zeros; none without a branch.
    down: Option<Tensor>,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    outputs: usize,
    /// `[outputs, inputs]`, inputs filled with zeros.
    codes: Tensor,
    scales: Tensor,
    /// `[outputs, rank]`, filled with zeros.
    up: Option<Tensor>,
}

impl LowBitWeight {
    /// Re-codes layers and puts them onto a device.
    ///
    /// # Errors
    /// Parts that do not fit, or memory that ran out.
    pub fn new(device: &Device, shared: &LowBitBranch, layers: &[LowBitLayer]) -> Result<Self> {
        let (inputs, rank) = (shared.inputs, shared.rank);
        let groups = inputs.div_ceil(STEP);
        let fits = inputs > 0
            && shared.factors.is_none_or(|factors| factors.len() == inputs)
            && shared.down.len() == rank * inputs
            && layers.iter().all(|layer| {
                layer.codes.len() == layer.outputs * groups * STEP
                    && layer.scales.len() == layer.outputs * groups
                    && layer.up.len() == layer.outputs * rank
            });
        if !fits {
            return Err(Error::Shape(format!(
                "linear: the parts of a 4-bit layer of {inputs} inputs and a branch of {rank} do not fit each other"
            )));
        }
        let wide = rank.next_multiple_of(RANK);
        let upload = |values: &[f32], [rows, width]: [usize; 2], [filled, room]: [usize; 2]| {
            let mut all = vec![bf16::ZERO; filled * room];
            for row in 0..rows {
                for (to, from) in all[row * room..]
                    .iter_mut()
                    .zip(&values[row * width..][..width])
                {
                    *to = bf16::from_f32(*from);
                }
            }
            device.upload_bf16(&all, &[filled, room])
        };
        let down = match rank {
            0 => None,
            _ => {
                let room = inputs.next_multiple_of(CHUNK);
                Some(upload(shared.down, [rank, inputs], [wide, room])?)
            }
        };
        let layer = |layer: &LowBitLayer| -> Result<Layer> {
            let (codes, scales) = recoded(layer, groups);
            let outputs = layer.outputs;
            let up = match rank {
                0 => None,
                _ => Some(upload(layer.up, [outputs, rank], [outputs, wide])?),
            };
            Ok(Layer {
                outputs,
                codes: device.upload_bytes(&codes, &[outputs, groups * STEP])?,
                scales: device.upload(&scales, &[outputs])?,
                up,
            })
        };
        Ok(Self {
            inputs,
            factors: shared
                .factors
                .map(|factors| device.upload(factors, &[inputs]))
                .transpose()?,
            down,
            layers: layers.iter().map(layer).collect::<Result<_>>()?,
        })
    }

    /// Widths of the layers' results.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().map(|layer| layer.outputs)
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
}

/// Codes of 8 bits with a scale an output.
fn recoded(layer: &LowBitLayer, groups: usize) -> (Vec<u8>, Vec<f32>) {
    let width = groups * STEP;
    let row_of = |row: usize| {
        (
            &layer.codes[row * width..][..width],
            &layer.scales[row * groups..][..groups],
        )
    };
    let scales = (0..layer.outputs).map(|row| {
        let (codes, scales) = row_of(row);
        let groups = codes.chunks_exact(STEP).zip(scales);
        let largest = groups.map(|(codes, scale)| {
            let code = codes.iter().map(|code| code.unsigned_abs()).max();
            f32::from(code.unwrap_or(0)) * scale.abs()
        });
        largest.fold(0.0, f32::max) / 127.0
    });
    let scales: Vec<f32> = scales.collect();
    let mut recoded = vec![0u8; layer.outputs * width];
    by_rows(&mut recoded, width, |row, to| {
        let (codes, group_scales) = row_of(row);
        let inverse = if scales[row] > 0.0 {
            1.0 / scales[row]
        } else {
            0.0
        };
        for (k, to) in to.iter_mut().enumerate() {
            let value = f32::from(codes[k]) * group_scales[k / STEP];
            *to = (value * inverse).round_ties_even() as i8 as u8;
        }
    });
    (recoded, scales)
}

/// What the layers of `w` with these numbers make of `x` `[.., inputs]`, which is rounded once for all; `after` has the
/// steps of each.
///
/// # Errors
/// As the module of all operations says; a layer that is not there.
pub fn low_bit_linear(
    x: &Tensor,
    w: &LowBitWeight,
    layers: std::ops::Range<usize>,
    after: &[Steps],
) -> Result<Vec<Tensor>> {
    let (Some(chosen), true) = (w.layers.get(layers.clone()), layers.len() == after.len()) else {
        return Err(Error::Shape(format!(
            "linear: layers {layers:?} of {} with steps of {}",
            w.layers.len(),
            after.len()
        )));
    };
    let Some(first) = chosen.first() else {
        return Ok(Vec::new());
    };
    let device = device_of("linear", &[x, &first.codes])?;
    if x.width() != w.inputs || x.dims().is_empty() {
        let expected = format!("[.., {}]", w.inputs);
        return Err(Error::shape("linear", x.dims(), &expected));
    }
    let (rows, depth) = (x.rows(), first.codes.width());
    let widest = w.widths().max().unwrap_or(0);
    within("linear", x, &[rows * depth.max(1), widest])?;
    let codes = device.unset(&[rows, depth], Element::U8)?;
    let scales = device.unset(&[rows], Element::F32)?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(w.factors.as_ref().map_or(0, Tensor::address))
        .int(rows)
        .int(w.inputs)
        .int(depth)
        .pointer(codes.address())
        .pointer(scales.address());
    // SAFETY: codes and scales have room for every row.
    unsafe {
        device.launch(
            ("low_bit", "quantize_rows"),
            [rows.div_ceil(8), 1, 1],
            256,
            0,
            &arguments,
        )?
    };
    let low = match &w.down {
        None => None,
        Some(down) => Some(branch_down(x, down)?),
    };
    let rank = low.as_ref().map_or(0, Tensor::width);
    let each = chosen.iter().zip(after).map(|(layer, after)| {
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(layer.outputs);
        let y = device.unset(&dims, after.element(x))?;
        let arguments = Arguments::new()
            .pointer(codes.address())
            .pointer(scales.address())
            .pointer(layer.codes.address())
            .pointer(layer.scales.address())
            .pointer(low.as_ref().map_or(0, Tensor::address))
            .pointer(layer.up.as_ref().map_or(0, Tensor::address))
            .int(rows)
            .int(layer.outputs)
            .int(depth)
            .int(rank)
            .structure(&after.structure("linear", &y)?);
        if after.has_shortcut() {
            let expected = "no shortcut behind it";
            return Err(Error::shape("linear", x.dims(), expected));
        }
        let grid = [layer.outputs.div_ceil(TILE), rows.div_ceil(TILE), 1];
        if grid[1] > 65_535 {
            let expected = "fewer rows; run it in parts";
            return Err(Error::shape("linear", x.dims(), expected));
        }
        // SAFETY: depth divides by a step and rank by a step of the branch; both sides have their scales.
        unsafe {
            device.launch(
                ("low_bit", "low_bit_linear"),
                grid,
                256,
                TILE * (TILE + 4) * 4,
                &arguments,
            )?
        };
        Ok(y)
    });
    each.collect()
}

/// `x downᵀ` in bf16, `[rows, rank]`.
fn branch_down(x: &Tensor, down: &Tensor) -> Result<Tensor> {
    let device = x.device();
    let x = cast(&padded_width(x, CHUNK)?, Element::Bf16)?;
    let (rows, rank) = (x.rows(), down.dims()[0]);
    let low = device.unset(&[rows, rank], Element::Bf16)?;
    let arguments = Arguments::new()
        .pointer(x.address())
        .pointer(down.address())
        .int(rows)
        .int(x.width())
        .int(rank)
        .pointer(low.address());
    // SAFETY: depth divides by eight and rank by 32, as `new` filled them up.
    unsafe {
        device.launch(
            ("low_bit", "branch_down"),
            [rows.div_ceil(16), rank / RANK, 1],
            128,
            4 * 16 * 32 * 4,
            &arguments,
        )?
    };
    Ok(low)
}
