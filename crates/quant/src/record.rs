//! One W4A4 layer: what its tensors in a nunchaku file say, in plain order.
//!
//! Reading and writing again gives the same bytes. Sizes are the padded ones of the file.

use std::borrow::Cow;

use brisk_kernels::gemm::{Threads, View, multiply};
use brisk_store::{Dtype, OutTensor, TensorSource};

use crate::error::Result;
use crate::integer::{GROUP, Integers, MICRO_GROUP};
use crate::layout::{self, RANK_TILE, TILE};
use crate::nvfp4::Floats;
use crate::reader::{Reader, dtype_of, half_of};
use crate::{Branch, HalfType};

/// The 4-bit weight of the smoothed input.
#[derive(Clone, Debug, PartialEq)]
pub enum Codes {
    /// Signed integers in groups of 64 inputs.
    Int4(Integers),
    /// Floats in groups of 16 inputs.
    Nvfp4(Floats),
}

/// One W4A4 layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Padded outputs.
    pub outputs: usize,
    /// Padded inputs.
    pub inputs: usize,
    /// Type of everything that is not 4 bits wide.
    pub half: HalfType,
    /// The weight of the smoothed input, `[outputs, inputs]`.
    pub codes: Codes,
    /// What the input is divided by, `[inputs]`.
    pub smooth: Vec<f32>,
    /// The factors that were found; kept for the file only.
    pub smooth_orig: Option<Vec<f32>>,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
    /// The side branch.
    pub branch: Option<Branch>,
}

/// How the tensors of a layer are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Naming {
    /// `smooth`, `lora_down`: the engine's first files.
    #[default]
    First,
    /// `smooth_factor`, `proj_down`: its Python models and diffusers.
    Second,
}

impl Naming {
    fn smooth(self) -> &'static str {
        match self {
            Self::First => "smooth",
            Self::Second => "smooth_factor",
        }
    }

    fn factors(self) -> [&'static str; 2] {
        match self {
            Self::First => ["lora_down", "lora_up"],
            Self::Second => ["proj_down", "proj_up"],
        }
    }
}

/// Last parts of the names of a quantized layer's tensors, in either naming.
pub const SUFFIXES: [&str; 14] = [
    "qweight",
    "wscales",
    "wzeros",
    "bias",
    "smooth",
    "smooth_orig",
    "smooth_factor",
    "smooth_factor_orig",
    "lora_down",
    "lora_up",
    "proj_down",
    "proj_up",
    "wtscale",
    CHANNEL_SCALES,
];

pub(crate) const CHANNEL_SCALES: &str = "wcscales";

impl Record {
    /// Reads the layer whose tensors are called `{prefix}.qweight` and so on.
    ///
    /// # Errors
    /// A tensor that is missing, of another type or shape, of another group size, or holds NaN or
    /// infinity: named, with what was found and expected.
    pub fn read(source: &dyn TensorSource, prefix: &str) -> Result<Self> {
        let reader = Reader { source, prefix };
        let (_, shape) = reader.info("qweight")?;
        let [outputs, half_inputs] = shape[..] else {
            let problem = format!("found shape {shape:?}, expected [outputs, inputs / 2]");
            return Err(reader.error("qweight", problem));
        };
        let inputs = half_inputs.saturating_mul(2);
        if outputs == 0
            || inputs == 0
            || !outputs.is_multiple_of(TILE)
            || !inputs.is_multiple_of(TILE)
        {
            let problem = format!(
                "found shape {shape:?}; outputs and inputs ({outputs}, {inputs}) must be multiples of {TILE}"
            );
            return Err(reader.error("qweight", problem));
        }
        let qweight = reader.bytes("qweight", &[Dtype::I8, Dtype::U8], &shape)?;
        let naming = if reader.has("smooth_factor") {
            Naming::Second
        } else {
            Naming::First
        };
        let half = reader.half(naming.smooth())?;
        let codes = layout::unpack_codes(&qweight, outputs, inputs, |n, k| {
            layout::code_place(n, k, inputs)
        });
        let codes = read_codes(&reader, codes, outputs, inputs, half)?;
        let channels = |name: &str, count: usize| -> Result<Vec<f32>> {
            let packed = reader.halves(name, half, &[count])?;
            Ok(layout::unpack(&packed, 1, |n, _| {
                layout::scale_place(n, 0, 1)
            }))
        };
        let optional = |name: &str, count: usize| -> Result<Option<Vec<f32>>> {
            reader.has(name).then(|| channels(name, count)).transpose()
        };
        let smooth = channels(naming.smooth(), inputs)?;
        if let Some(place) = smooth.iter().position(|v| *v == 0.0) {
            let problem = format!("the factor of input {place} is 0; inputs are divided by it");
            return Err(reader.error(naming.smooth(), problem));
        }
        Ok(Self {
            outputs,
            inputs,
            half,
            codes,
            smooth,
            smooth_orig: optional(&format!("{}_orig", naming.smooth()), inputs)?,
            bias: optional("bias", outputs)?,
            branch: read_branch(&reader, naming, outputs, inputs, half)?,
        })
    }

    /// The layer's tensors, packed.
    ///
    /// # Panics
    /// When sizes are not multiples of [`TILE`], or the rank of [`RANK_TILE`].
    pub fn tensors(&self, prefix: &str, naming: Naming) -> Vec<OutTensor<'static>> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        assert!(outputs.is_multiple_of(TILE) && inputs.is_multiple_of(TILE));
        let tensor = |name: &str, dtype, shape: &[usize], data: Vec<u8>| OutTensor {
            name: format!("{prefix}.{name}"),
            dtype,
            shape: shape.to_vec(),
            data: Cow::Owned(data),
        };
        let half = |name: &str, shape: &[usize], values: &[f32]| {
            tensor(name, dtype_of(self.half), shape, self.half.bytes(values))
        };
        let channels = |name: &str, values: &[f32]| {
            let packed = layout::pack(values, 1, |n, _| layout::scale_place(n, 0, 1));
            half(name, &[values.len()], &packed)
        };
        let place = |n, k| layout::code_place(n, k, inputs);
        let mut out = Vec::new();
        match &self.codes {
            Codes::Int4(weight) => {
                let bytes = layout::pack_codes(&weight.codes, outputs, inputs, place);
                out.push(tensor("qweight", Dtype::I8, &[outputs, inputs / 2], bytes));
                let groups = inputs / GROUP;
                let scales = layout::pack(&weight.scales, groups, |n, g| {
                    layout::scale_place(n, g, groups)
                });
                out.push(half("wscales", &[groups, outputs], &scales));
            }
            Codes::Nvfp4(floats) => {
                let codes: Vec<i8> = floats.codes.iter().map(|c| *c as i8).collect();
                let bytes = layout::pack_codes(&codes, outputs, inputs, place);
                out.push(tensor("qweight", Dtype::I8, &[outputs, inputs / 2], bytes));
                let groups = inputs / MICRO_GROUP;
                let packed = layout::pack(&floats.scales, groups, |n, g| {
                    layout::micro_scale_place(n, g, inputs)
                });
                out.push(tensor("wscales", Dtype::F8E4M3, &[groups, outputs], packed));
                if let Some((scale, dtype)) = &floats.tensor_scale {
                    let bytes = match half_of(*dtype) {
                        Some(half) => half.bytes(&[*scale]),
                        None => scale.to_le_bytes().to_vec(),
                    };
                    out.push(tensor("wtscale", *dtype, &[1], bytes));
                }
                if let Some(scales) = &floats.channel_scales {
                    out.push(channels(CHANNEL_SCALES, scales));
                }
            }
        }
        out.push(channels(naming.smooth(), &self.smooth));
        if let Some(smooth) = &self.smooth_orig {
            out.push(channels(&format!("{}_orig", naming.smooth()), smooth));
        }
        if let Some(bias) = &self.bias {
            out.push(channels("bias", bias));
        }
        if let Some(Branch { rank, down, up }) = &self.branch {
            assert!(rank.is_multiple_of(RANK_TILE));
            let [down_name, up_name] = naming.factors();
            let down = layout::pack(down, inputs, |r, k| layout::down_place(r, k, *rank));
            let up = layout::pack(up, *rank, |n, r| layout::up_place(n, r, *rank));
            out.push(half(down_name, &[inputs, *rank], &down));
            out.push(half(up_name, &[outputs, *rank], &up));
        }
        out
    }

    /// The 4-bit weight of the smoothed input in f32, `[outputs, inputs]`.
    pub fn residual(&self) -> Vec<f32> {
        match &self.codes {
            Codes::Int4(weight) => weight.values(),
            Codes::Nvfp4(floats) => floats.values(self.inputs),
        }
    }

    /// The plain weight that the layer stands for: residual/smooth + up·down, `[outputs, inputs]`.
    pub fn weight(&self) -> Vec<f32> {
        let mut weight = self.residual();
        for row in weight.chunks_exact_mut(self.inputs) {
            for (w, smooth) in row.iter_mut().zip(&self.smooth) {
                *w /= smooth;
            }
        }
        if let Some(Branch { rank, down, up }) = &self.branch {
            multiply(
                &mut weight,
                self.inputs,
                View::new(up, self.outputs, *rank),
                View::new(down, *rank, self.inputs),
                1.0,
                true,
                Threads::Pool,
            );
        }
        weight
    }
}

fn read_codes(
    reader: &Reader,
    codes: Vec<u8>,
    outputs: usize,
    inputs: usize,
    half: HalfType,
) -> Result<Codes> {
    let (dtype, shape) = reader.info("wscales")?;
    if dtype == Dtype::F8E4M3 {
        return Floats::read(reader, codes, outputs, inputs, half).map(Codes::Nvfp4);
    }
    let groups = inputs / GROUP;
    if shape.len() == 2 && shape[1] == outputs && shape[0] != groups && shape[0] > 0 {
        let problem = format!(
            "found scales for groups of {} inputs, expected groups of {GROUP} ([{groups}, {outputs}])",
            inputs / shape[0]
        );
        return Err(reader.error("wscales", problem));
    }
    if dtype != dtype_of(half) {
        let problem = format!("found {dtype}, expected {} or F8_E4M3", dtype_of(half));
        return Err(reader.error("wscales", problem));
    }
    let packed = reader.halves("wscales", half, &[groups, outputs])?;
    let scales = layout::unpack(&packed, groups, |n, g| layout::scale_place(n, g, groups));
    // Two's complement of four bits.
    let codes = codes.into_iter().map(|code| (code << 4) as i8 >> 4);
    Ok(Codes::Int4(Integers {
        codes: codes.collect(),
        scales,
        group: GROUP,
    }))
}

fn read_branch(
    reader: &Reader,
    naming: Naming,
    outputs: usize,
    inputs: usize,
    half: HalfType,
) -> Result<Option<Branch>> {
    let [down_name, up_name] = naming.factors();
    if !reader.has(down_name) && !reader.has(up_name) {
        return Ok(None);
    }
    let (_, shape) = reader.info(down_name)?;
    let rank = shape.get(1).copied().unwrap_or(0);
    if rank == 0 || !rank.is_multiple_of(RANK_TILE) {
        let problem = format!(
            "found shape {shape:?}, expected [{inputs}, rank] with a rank that is a multiple of {RANK_TILE}"
        );
        return Err(reader.error(down_name, problem));
    }
    let down = reader.halves(down_name, half, &[inputs, rank])?;
    let up = reader.halves(up_name, half, &[outputs, rank])?;
    // `unpack` counts rows from the length, which is that of [rank, inputs] too.
    Ok(Some(Branch {
        rank,
        down: layout::unpack(&down, inputs, |r, k| layout::down_place(r, k, rank)),
        up: layout::unpack(&up, rank, |n, r| layout::up_place(n, r, rank)),
    }))
}
