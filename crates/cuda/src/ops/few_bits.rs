//! Linear layers whose weights are codes of 4 or 8 bits with a scale for every group of inputs.

use half::bf16;

use super::copy::{cast, padded_width};
use super::few_rows::{self, CodeArrays, Weights};
use super::product::{LinearWeight, linear};
use super::steps::Steps;
use super::{THREADS, blocks, device_of, within};
use crate::device::{Device, Precision};
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Inputs that share a scale on the card.
const GROUP: usize = 32;
/// What inputs are filled up to.
const FILLED: usize = 128;
/// Inputs divide by so many in products.
const CHUNK: usize = 8;

/// Bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// −8 to 7.
    Four,
    /// −127 to 127.
    Eight,
}

/// A weight `[outputs, inputs]` in groups: `code·scale + zero`.
#[derive(Clone, Copy, Debug)]
pub struct GroupCodes<'a> {
    /// Width of the result.
    pub outputs: usize,
    /// Width of the input.
    pub inputs: usize,
    /// Inputs that share a scale; a multiple of 32.
    pub group: usize,
    /// Bits of a code.
    pub bits: Bits,
    /// `[outputs, groups·group]`.
    pub codes: &'a [i8],
    /// `[outputs, groups]`; kept as bf16.
    pub scales: &'a [f32],
    /// `[outputs, groups]`; kept as bf16.
    pub zeros: Option<&'a [f32]>,
}

/// Such a weight on a device.
#[derive(Clone, Debug)]
pub struct FewBitsWeight {
    form: Form,
    inputs: usize,
    outputs: usize,
}

#[derive(Clone, Debug)]
enum Form {
    Codes(CodeArrays, Bits),
    /// Devices of f32 keep the values.
    Wide(LinearWeight),
}

impl FewBitsWeight {
    /// Packs a weight for products.
    ///
    /// # Errors
    /// Parts that do not fit, or memory that ran out.
    pub fn new(device: &Device, weight: &GroupCodes) -> Result<Self> {
        let GroupCodes {
            outputs,
            inputs,
            group,
            ..
        } = *weight;
        let groups = if group == 0 {
            0
        } else {
            inputs.div_ceil(group)
        };
        let fits = group > 0
            && group.is_multiple_of(GROUP)
            && weight.codes.len() == outputs * groups * group
            && weight.scales.len() == outputs * groups
            && weight
                .zeros
                .is_none_or(|zeros| zeros.len() == outputs * groups)
            && outputs > 0
            && inputs > 0;
        if !fits {
            return Err(Error::Shape(format!(
                "linear: {} codes and {} scales are not those of {outputs}x{inputs} in groups of {group}",
                weight.codes.len(),
                weight.scales.len()
            )));
        }
        let form = match device.precision() {
            Precision::Single => {
                let wide = device.upload(&values(weight), &[outputs, inputs])?;
                Form::Wide(LinearWeight::new(&wide)?)
            }
            Precision::Half => Form::Codes(packed(device, weight)?, weight.bits),
        };
        Ok(Self {
            form,
            inputs,
            outputs,
        })
    }

    /// Outputs and inputs.
    pub fn sides(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// One weight of the outputs of all `parts`; none where they differ in inputs or bits, or only some have zeros.
    ///
    /// # Errors
    /// Memory that ran out.
    pub fn joined(parts: &[&Self]) -> Result<Option<Self>> {
        let Some(first) = parts.first() else {
            return Ok(None);
        };
        let (mut wide, mut arrays) = (Vec::new(), Vec::new());
        for part in parts {
            match (&part.form, &first.form) {
                _ if part.inputs != first.inputs => return Ok(None),
                (Form::Wide(weight), _) => wide.push(weight),
                (Form::Codes(codes, bits), Form::Codes(_, other)) if bits == other => {
                    arrays.push(codes);
                }
                (Form::Codes(..), _) => return Ok(None),
            }
        }
        let form = match (&first.form, arrays.len() == parts.len()) {
            (Form::Codes(_, bits), true) => {
                let Some(joined) = CodeArrays::joined(&arrays)? else {
                    return Ok(None);
                };
                Form::Codes(joined, *bits)
            }
            _ if wide.len() == parts.len() => match LinearWeight::joined(&wide)? {
                Some(joined) => Form::Wide(joined),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Self {
            form,
            inputs: first.inputs,
            outputs: parts.iter().map(|part| part.outputs).sum(),
        }))
    }
}

/// The values that the codes stand for, `[outputs, inputs]`.
fn values(weight: &GroupCodes) -> Vec<f32> {
    let groups = weight.inputs.div_ceil(weight.group);
    let mut values = Vec::with_capacity(weight.outputs * weight.inputs);
    for (row, codes) in weight.codes.chunks_exact(groups * weight.group).enumerate() {
        values.extend(codes[..weight.inputs].iter().enumerate().map(|(k, code)| {
            let at = row * groups + k / weight.group;
            f32::from(*code) * weight.scales[at] + weight.zeros.map_or(0.0, |zeros| zeros[at])
        }));
    }
    values
}

/// Fills rows of `width` bytes by all threads of the machine.
pub(super) fn by_rows(to: &mut [u8], width: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
    let rows = to.len() / width.max(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = rows.div_ceil(threads).max(64);
    let fill = &fill;
    std::thread::scope(|scope| {
        for (part, to) in to.chunks_mut((each * width).max(1)).enumerate() {
            scope.spawn(move || {
                for (row, to) in to.chunks_exact_mut(width).enumerate() {
                    fill(part * each + row, to);
                }
            });
        }
    });
}

fn packed(device: &Device, weight: &GroupCodes) -> Result<CodeArrays> {
    let groups = weight.inputs.div_ceil(weight.group);
    let (width, depth) = (
        groups * weight.group,
        weight.inputs.next_multiple_of(FILLED),
    );
    let (each, small) = (weight.group / GROUP, depth / GROUP);
    let bytes = match weight.bits {
        Bits::Four => depth / 2,
        Bits::Eight => depth,
    };
    let mut codes = vec![0u8; weight.outputs * bytes];
    by_rows(&mut codes, bytes, |row, to| {
        let row = &weight.codes[row * width..][..width];
        // What fills a group has no value, but a zero may have: inputs are zeros there.
        let row = |k: usize| row.get(k).copied().unwrap_or(0);
        match weight.bits {
            Bits::Eight => {
                for (k, to) in to.iter_mut().enumerate() {
                    *to = (i16::from(row(k)) + 128) as u8;
                }
            }
            Bits::Four => {
                for (part, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let word = (0..8).fold(0u32, |word, j| {
                        let raised = (row(8 * part + j) + 8) as u32 & 15;
                        word | raised << (4 * (j / 2 + j % 2 * 4))
                    });
                    *to = word.to_le_bytes();
                }
            }
        }
    });
    let spread = |from: &[f32]| -> Result<Tensor> {
        let mut to = vec![bf16::ZERO; weight.outputs * small];
        for (from, to) in from.chunks_exact(groups).zip(to.chunks_exact_mut(small)) {
            for (at, to) in to.iter_mut().enumerate() {
                *to = from
                    .get(at / each)
                    .map_or(bf16::ZERO, |v| bf16::from_f32(*v));
            }
        }
        device.upload_bf16(&to, &[weight.outputs, small])
    };
    Ok(CodeArrays {
        codes: device.upload_bytes(&codes, &[weight.outputs, bytes])?,
        scales: spread(weight.scales)?,
        zeros: weight.zeros.map(spread).transpose()?,
        outputs: weight.outputs,
        depth,
    })
}

/// `steps(x wᵀ)`: `[.., inputs]` to `[.., outputs]`. Few rows read the codes themselves; for more, the weight's values
/// are made once and used like any other's.
///
/// # Errors
/// As the module says.
pub fn few_bits_linear(x: &Tensor, w: &FewBitsWeight, after: &Steps) -> Result<Tensor> {
    let (arrays, bits) = match &w.form {
        Form::Wide(weight) => return linear(x, weight, after),
        Form::Codes(arrays, bits) => (arrays, *bits),
    };
    let device = device_of("linear", &[x, &arrays.codes])?;
    if x.width() != w.inputs || x.dims().is_empty() {
        let expected = format!("[.., {}]", w.inputs);
        return Err(Error::shape("linear", x.dims(), &expected));
    }
    let rows = x.rows();
    within("linear", x, &[rows, w.inputs, w.outputs])?;
    if rows <= few_rows::MOST && !after.has_shortcut() {
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(w.outputs);
        let x = cast(&padded_width(x, CHUNK)?, Element::Bf16)?;
        let y = device.unset(&dims, after.element(&x))?;
        let weights = match bits {
            Bits::Four => Weights::FourBits(arrays),
            Bits::Eight => Weights::EightBits(arrays),
        };
        few_rows::run(&x, weights, &y, after)?;
        return Ok(y);
    }
    let wide = device.unset(&[w.outputs, arrays.depth], Element::Bf16)?;
    let arguments = Arguments::new()
        .structure(&arrays.structure())
        .int(if bits == Bits::Four { 4 } else { 8 })
        .structure(&wide.array())
        .long(wide.count());
    // SAFETY: there is a value for every code, and the depth divides by 32.
    unsafe {
        device.launch(
            ("few_rows_tiles", "widen_codes"),
            blocks(wide.count() / 8),
            THREADS,
            0,
            &arguments,
        )?
    };
    linear(&padded_width(x, FILLED)?, &LinearWeight::new(&wide)?, after)
}
