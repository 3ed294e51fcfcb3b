//! Products of few rows, bound by reading weights.

use super::copy::concatenate;
use super::steps::Steps;
use super::{THREADS, blocks, within};
use crate::driver::{Arguments, Structure};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

/// Most rows.
pub(super) const MOST: usize = 64;
/// Inputs that a block takes at a time.
const CHUNK: usize = 128;
/// Bytes of shared memory for a row of those, twice.
const ROW: usize = 2 * (CHUNK + 32) * 2;

/// Weights `[outputs, inputs]` in any form.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// As bf16.
    Halves(&'a Tensor),
    /// As codes of 4 bits; outputs, inputs with what was added to fill groups.
    FourBits(&'a CodeArrays),
    /// As codes of 8 bits.
    EightBits(&'a CodeArrays),
}

/// Codes with their scales, as kernels take them: `Codes`.
#[derive(Clone, Debug)]
pub(super) struct CodeArrays {
    pub codes: Tensor,
    pub scales: Tensor,
    pub zeros: Option<Tensor>,
    pub outputs: usize,
    /// Divides by [`CHUNK`].
    pub depth: usize,
}

impl CodeArrays {
    /// The outputs of all `parts`, which have one depth; none where only some have zeros.
    pub fn joined(parts: &[&Self]) -> Result<Option<Self>> {
        let zeros: Vec<&Tensor> = parts
            .iter()
            .filter_map(|part| part.zeros.as_ref())
            .collect();
        let zeros = match zeros.len() {
            0 => None,
            count if count == parts.len() => Some(concatenate(&zeros, 0)?),
            _ => return Ok(None),
        };
        let scales: Vec<&Tensor> = parts.iter().map(|part| &part.scales).collect();
        // Bytes are moved four at a time: the depth divides by 128.
        let words = parts.iter().map(|part| part.codes.as_words());
        let words: Vec<Tensor> = words.collect::<Result<_>>()?;
        let words: Vec<&Tensor> = words.iter().collect();
        Ok(Some(Self {
            codes: concatenate(&words, 0)?,
            scales: concatenate(&scales, 0)?,
            zeros,
            outputs: parts.iter().map(|part| part.outputs).sum(),
            depth: parts.first().map_or(0, |part| part.depth),
        }))
    }

    pub fn structure(&self) -> Structure {
        Structure::new()
            .pointer(self.codes.address())
            .pointer(self.scales.address())
            .pointer(self.zeros.as_ref().map_or(0, Tensor::address))
            .ints(&[self.depth, 0])
    }
}

/// Runs `y = steps(x wᵀ)`: x is `[rows, inputs]` of bf16 with at most [`MOST`] rows, inputs divide by 8 and are not
/// more than the weights'; `y` has as many rows and the weights' outputs; there is no shortcut. The caller has seen to
/// all this.
pub(super) fn run(x: &Tensor, w: Weights, y: &Tensor, steps: &Steps) -> Result<()> {
    let device = x.device();
    let (rows, inputs) = (x.rows(), x.width());
    let (outputs, depth, tile) = match w {
        Weights::Halves(w) => (w.dims()[0], w.width(), 64),
        Weights::FourBits(w) | Weights::EightBits(w) => (w.outputs, w.depth, 128),
    };
    within("linear", x, &[rows * outputs, depth])?;
    if rows == 0 || outputs == 0 {
        return Ok(());
    }
    let (eights, names) = match rows.div_ceil(8) {
        0..=1 => (1, ["few_rows_bf16_1", "few_rows_4bit_1", "few_rows_8bit_1"]),
        2..=4 => (4, ["few_rows_bf16_4", "few_rows_4bit_4", "few_rows_8bit_4"]),
        _ => (8, ["few_rows_bf16_8", "few_rows_4bit_8", "few_rows_8bit_8"]),
    };
    let tiles = outputs.div_ceil(tile);
    let chunks = depth.div_ceil(CHUNK).max(1);
    // Enough blocks that all multiprocessors read at once, each with some chunks.
    let wanted = (4 * device.card().multiprocessors).div_ceil(tiles);
    let spans = wanted.clamp(1, chunks.div_ceil(2));
    let span = chunks.div_ceil(spans);
    let spans = chunks.div_ceil(span);
    let parts = match spans {
        1 => None,
        _ => Some(device.unset(&[spans, rows, outputs], Element::F32)?),
    };
    let arguments = Arguments::new().pointer(x.address());
    let (name, arguments) = match w {
        Weights::Halves(w) => (names[0], arguments.pointer(w.address())),
        Weights::FourBits(w) => (names[1], arguments.structure(&w.structure())),
        Weights::EightBits(w) => (names[2], arguments.structure(&w.structure())),
    };
    let structure = steps.structure("linear", y)?;
    let arguments = arguments
        .int(rows)
        .int(outputs)
        .int(inputs)
        .int(depth)
        .int(span * CHUNK)
        .pointer(parts.as_ref().map_or(0, Tensor::address))
        .structure(&structure);
    let shared = 8 * eights * ROW;
    // SAFETY: sizes are as the kernel takes them, and there is a part for each span.
    unsafe {
        device.launch(
            ("few_rows_tiles", name),
            [tiles, 1, spans],
            128,
            shared,
            &arguments,
        )?
    };
    let Some(parts) = parts else {
        return Ok(());
    };
    let arguments = Arguments::new()
        .pointer(parts.address())
        .int(spans)
        .int(rows)
        .int(outputs)
        .structure(&structure);
    // SAFETY: the parts are there, and `y` is of this shape.
    unsafe {
        device.launch(
            ("few_rows_tiles", "sum_parts"),
            blocks(rows * outputs.div_ceil(8)),
            THREADS,
            0,
            &arguments,
        )
    }
}
