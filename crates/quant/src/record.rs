//! One quantised layer: what its tensors in a nunchaku file say, in plain order.
//!
//! Reading and writing again gives the same bytes. Sizes are the padded ones of the file.

use std::borrow::Cow;

use brisk_kernels::gemm::{Threads, View, multiply};
use brisk_store::{Dtype, OutTensor, TensorSource, e4m3_to_f32};
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::integer::{GROUP, Integers, MICRO_GROUP, e2m1_value};
use crate::layout::{self, RANK_TILE, TILE};

/// The 16-bit type of scales, factors and biases.
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
        match self {
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }

    /// As stored tensors have it.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    fn from_dtype(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// The bytes of values, rounded to the type.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        let half = |value: &f32| match self {
            Self::Bf16 => bf16::from_f32(*value).to_le_bytes(),
            Self::F16 => f16::from_f32(*value).to_le_bytes(),
        };
        values.iter().flat_map(half).collect()
    }
}

/// The 16-bit side branch: `(x·downᵀ)·upᵀ` for the raw input x.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Width between the factors.
    pub rank: usize,
    /// `[rank, inputs]`, already divided by the smoothing factors.
    pub down: Vec<f32>,
    /// `[outputs, rank]`
    pub up: Vec<f32>,
}

/// The 4-bit weight of the smoothed input.
#[derive(Clone, Debug, PartialEq)]
pub enum Codes {
    /// Signed integers in groups of 64 inputs.
    Int4(Integers),
    /// Floats in groups of 16 inputs.
    Nvfp4 {
        /// `e2m1` `[outputs, inputs]`, 0 to 15.
        codes: Vec<u8>,
        /// `e4m3fn` `[outputs, inputs / 16]`
        scales: Vec<u8>,
        /// One factor for all, and the type that it is stored in.
        tensor_scale: Option<(f32, Dtype)>,
        /// One factor an output.
        channel_scales: Option<Vec<f32>>,
    },
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

/// Last parts of the names of a quantised layer's tensors, in either naming.
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

const CHANNEL_SCALES: &str = "wcscales";

/// The tensors below one prefix.
pub(crate) struct Reader<'a> {
    pub source: &'a dyn TensorSource,
    pub prefix: &'a str,
}

impl Reader<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub fn has(&self, name: &str) -> bool {
        self.source.info(&self.path(name)).is_some()
    }

    pub fn error(&self, name: &str, problem: String) -> Error {
        let tensor = self.path(name);
        Error::Tensor {
            file: self.source.origin(&tensor),
            tensor,
            problem,
        }
    }

    pub fn info(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        self.source.info(&self.path(name)).ok_or_else(|| {
            self.error(
                name,
                "it is missing; the layer is quantised, so the file is incomplete or of another format"
                    .to_owned(),
            )
        })
    }

    /// Bytes of a tensor of one of `dtypes` and this shape.
    pub fn bytes(&self, name: &str, dtypes: &[Dtype], shape: &[usize]) -> Result<Cow<'_, [u8]>> {
        let (dtype, found) = self.info(name)?;
        if !dtypes.contains(&dtype) || found != shape {
            let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
            return Err(self.error(
                name,
                format!(
                    "found {dtype} of shape {found:?}, expected {} of shape {shape:?}",
                    names.join(" or ")
                ),
            ));
        }
        let view = self.source.view(&self.path(name))?;
        let view = view.ok_or_else(|| self.error(name, "it is missing".to_owned()))?;
        view.elements()?;
        Ok(view.data)
    }

    /// Finite 16-bit values.
    pub fn halves(&self, name: &str, half: HalfType, shape: &[usize]) -> Result<Vec<f32>> {
        let bytes = self.bytes(name, &[half.dtype()], shape)?;
        let widen = |bytes: &[u8; 2]| match half {
            HalfType::Bf16 => bf16::from_le_bytes(*bytes).to_f32(),
            HalfType::F16 => f16::from_le_bytes(*bytes).to_f32(),
        };
        let values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(widen).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(place) => Err(self.error(
                name,
                format!("value {place} is {}; the file is damaged", values[place]),
            )),
            None => Ok(values),
        }
    }
}

fn half_types() -> [Dtype; 2] {
    [Dtype::BF16, Dtype::F16]
}

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
        let (smooth_type, _) = reader.info(naming.smooth())?;
        let half = HalfType::from_dtype(smooth_type).ok_or_else(|| {
            let problem = format!("found {smooth_type}, expected BF16 or F16");
            reader.error(naming.smooth(), problem)
        })?;
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
            tensor(name, self.half.dtype(), shape, self.half.bytes(values))
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
            Codes::Nvfp4 {
                codes,
                scales,
                tensor_scale,
                channel_scales,
            } => {
                let codes: Vec<i8> = codes.iter().map(|c| *c as i8).collect();
                let bytes = layout::pack_codes(&codes, outputs, inputs, place);
                out.push(tensor("qweight", Dtype::I8, &[outputs, inputs / 2], bytes));
                let groups = inputs / MICRO_GROUP;
                let packed = layout::pack(scales, groups, |n, g| {
                    layout::micro_scale_place(n, g, inputs)
                });
                out.push(tensor("wscales", Dtype::F8E4M3, &[groups, outputs], packed));
                if let Some((scale, dtype)) = tensor_scale {
                    let bytes = match HalfType::from_dtype(*dtype) {
                        Some(half) => half.bytes(&[*scale]),
                        None => scale.to_le_bytes().to_vec(),
                    };
                    out.push(tensor("wtscale", *dtype, &[1], bytes));
                }
                if let Some(scales) = channel_scales {
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

    /// The layer with other rows and another width: output i is the old output `rows[i]`, or one of
    /// zeros; inputs are cut, or padded with zeros, to `inputs`, a multiple of the group.
    ///
    /// # Panics
    /// When a row does not exist, or `inputs` is not a multiple of 64.
    pub fn arrange(&self, rows: &[Option<usize>], inputs: usize) -> Record {
        assert!(inputs.is_multiple_of(GROUP), "{inputs} inputs");
        let from = self.inputs;
        let codes = match &self.codes {
            Codes::Int4(weight) => Codes::Int4(Integers {
                codes: arranged(&weight.codes, from, rows, inputs, 0),
                scales: arranged(&weight.scales, from / GROUP, rows, inputs / GROUP, 1.0),
                group: GROUP,
            }),
            Codes::Nvfp4 {
                codes,
                scales,
                tensor_scale,
                channel_scales,
            } => {
                let one = crate::integer::e4m3_code(1.0);
                let groups = (from / MICRO_GROUP, inputs / MICRO_GROUP);
                Codes::Nvfp4 {
                    codes: arranged(codes, from, rows, inputs, 0),
                    scales: arranged(scales, groups.0, rows, groups.1, one),
                    tensor_scale: *tensor_scale,
                    channel_scales: channel_scales
                        .as_ref()
                        .map(|scales| arranged(scales, 1, rows, 1, 1.0)),
                }
            }
        };
        let whole = [Some(0)];
        Record {
            outputs: rows.len(),
            inputs,
            half: self.half,
            codes,
            smooth: arranged(&self.smooth, from, &whole, inputs, 1.0),
            smooth_orig: self
                .smooth_orig
                .as_ref()
                .map(|smooth| arranged(smooth, from, &whole, inputs, 1.0)),
            bias: self
                .bias
                .as_ref()
                .map(|bias| arranged(bias, 1, rows, 1, 0.0)),
            branch: self.branch.as_ref().map(|branch| {
                let all: Vec<_> = (0..branch.rank).map(Some).collect();
                Branch {
                    rank: branch.rank,
                    down: arranged(&branch.down, from, &all, inputs, 0.0),
                    up: arranged(&branch.up, branch.rank, rows, branch.rank, 0.0),
                }
            }),
        }
    }

    /// The 4-bit weight of the smoothed input in f32, `[outputs, inputs]`.
    pub fn residual(&self) -> Vec<f32> {
        match &self.codes {
            Codes::Int4(weight) => weight.values(),
            Codes::Nvfp4 {
                codes,
                scales,
                tensor_scale,
                channel_scales,
            } => {
                let whole = tensor_scale.map_or(1.0, |(scale, _)| scale);
                let groups = self.inputs / MICRO_GROUP;
                let value = |(index, codes): (usize, &[u8])| -> Vec<f32> {
                    let channel = channel_scales.as_ref().map_or(1.0, |s| s[index / groups]);
                    let step = e4m3_to_f32(scales[index]) * whole * channel;
                    codes.iter().map(|code| e2m1_value(*code) * step).collect()
                };
                let codes = codes.chunks_exact(MICRO_GROUP).enumerate();
                codes.flat_map(value).collect()
            }
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

/// Rows of a matrix `[_, from]`, chosen, cut or padded with `fill` to `[rows.len(), to]`.
fn arranged<T: Copy>(
    values: &[T],
    from: usize,
    rows: &[Option<usize>],
    to: usize,
    fill: T,
) -> Vec<T> {
    let mut out = vec![fill; rows.len() * to];
    let kept = from.min(to);
    for (out, row) in out.chunks_exact_mut(to.max(1)).zip(rows) {
        if let Some(row) = row {
            out[..kept].copy_from_slice(&values[row * from..row * from + kept]);
        }
    }
    out
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
        let groups = inputs / MICRO_GROUP;
        let bytes = reader.bytes("wscales", &[dtype], &[groups, outputs])?;
        let scales = layout::unpack(&bytes[..], groups, |n, g| {
            layout::micro_scale_place(n, g, inputs)
        });
        if let Some(place) = scales.iter().position(|s| e4m3_to_f32(*s).is_nan()) {
            return Err(reader.error(
                "wscales",
                format!("scale {place} is NaN; the file is damaged"),
            ));
        }
        let tensor_scale = if reader.has("wtscale") {
            let (dtype, _) = reader.info("wtscale")?;
            let scale = match HalfType::from_dtype(dtype) {
                Some(half) => reader.halves("wtscale", half, &[1])?[0],
                None => {
                    let bytes = reader.bytes("wtscale", &[Dtype::F32], &[1])?;
                    bytes
                        .first_chunk()
                        .map_or(f32::NAN, |b| f32::from_le_bytes(*b))
                }
            };
            if !scale.is_finite() {
                return Err(reader.error("wtscale", format!("it is {scale}; the file is damaged")));
            }
            Some((scale, dtype))
        } else {
            None
        };
        let channel_scales = if reader.has(CHANNEL_SCALES) {
            let packed = reader.halves(CHANNEL_SCALES, half, &[outputs])?;
            Some(layout::unpack(&packed, 1, |n, _| {
                layout::scale_place(n, 0, 1)
            }))
        } else {
            None
        };
        return Ok(Codes::Nvfp4 {
            codes,
            scales,
            tensor_scale,
            channel_scales,
        });
    }
    let groups = inputs / GROUP;
    if shape.len() == 2 && shape[1] == outputs && shape[0] != groups && shape[0] > 0 {
        let problem = format!(
            "found scales for groups of {} inputs, expected groups of {GROUP} ([{groups}, {outputs}])",
            inputs / shape[0]
        );
        return Err(reader.error("wscales", problem));
    }
    if !half_types().contains(&dtype) || dtype != half.dtype() {
        let problem = format!("found {dtype}, expected {} or F8_E4M3", half.dtype());
        return Err(reader.error("wscales", problem));
    }
    let packed = reader.halves("wscales", half, &[groups, outputs])?;
    let scales = layout::unpack(&packed, groups, |n, g| layout::scale_place(n, g, groups));
    // Two's complement of four bits.
    let codes = codes.iter().map(|code| (*code << 4) as i8 >> 4).collect();
    Ok(Codes::Int4(Integers {
        codes,
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
    /// As [`Record::read`].
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
        let (dtype, found) = reader.info("wscales")?;
        let half = HalfType::from_dtype(dtype).ok_or_else(|| {
            reader.error("wscales", format!("found {dtype}, expected BF16 or F16"))
        })?;
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
            tensor(name, self.half.dtype(), shape, self.half.bytes(values))
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
}
