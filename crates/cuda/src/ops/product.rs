//! Linear layers and convolutions.

use std::ops::Range;
use std::sync::OnceLock;

use super::copy::{cast, concatenate, padded_width};
use super::pointwise::steps;
use super::steps::Steps;
use super::tiles::{self, Tile};
use super::{THREADS, blocks, device_of, map_of, optional, within};
use super::{ends, few_rows};
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Operands come in chunks of so many values along the depth.
const CHUNK: usize = 8;
/// Rows up to which a product is bound by reading weights.
const FEW_ROWS: usize = 8;

/// The kernel of a product by its operands' type: its file and name, rows and columns of a block, shared memory.
struct Kernel {
    linear: (&'static str, &'static str),
    convolution: (&'static str, &'static str),
    tile: usize,
    shared: usize,
}

fn kernel(element: Element) -> Kernel {
    match element {
        Element::F32 | Element::U32 | Element::U8 => Kernel {
            linear: ("precise", "linear_f32"),
            convolution: ("precise", "conv_f32"),
            tile: 64,
            shared: 64 * 68 * 4,
        },
        Element::Bf16 => Kernel {
            linear: ("product", "linear_bf16"),
            convolution: ("product", "conv_bf16"),
            tile: 128,
            shared: 128 * 132 * 4,
        },
    }
}

/// A linear layer's weight `[outputs, inputs]`, ready for products.
#[derive(Clone, Debug)]
pub struct LinearWeight {
    /// `[outputs, inputs]`, inputs filled with zeros to a multiple of [`CHUNK`].
    weight: Tensor,
    inputs: usize,
    made: Made,
}

/// Kernels that had been queued when a weight was made.
#[derive(Clone, Copy, Debug)]
struct Made(u64);

impl Made {
    fn now(weight: &Tensor) -> Self {
        Self(weight.device().launches())
    }

    /// Whether another kernel was queued since: the next one may read the weight before that one is done.
    fn is_older(self, weight: &Tensor) -> bool {
        weight.device().launches() > self.0
    }
}

impl LinearWeight {
    /// From `[outputs, inputs]` in any type.
    ///
    /// # Errors
    /// Other shapes, or memory that ran out.
    pub fn new(weight: &Tensor) -> Result<Self> {
        let [_, inputs] = *weight.dims() else {
            return Err(Error::shape("linear", weight.dims(), "[outputs, inputs]"));
        };
        let weight = padded_width(weight, CHUNK)?;
        let weight = cast(&weight, weight.device().element())?;
        Ok(Self {
            made: Made::now(&weight),
            weight,
            inputs,
        })
    }

    /// Those of the `outputs` alone, whose values it shares.
    fn of(&self, outputs: Range<usize>) -> Result<Self> {
        let depth = self.weight.width();
        Ok(Self {
            weight: self
                .weight
                .part(outputs.start * depth, &[outputs.len(), depth])?,
            ..*self
        })
    }

    /// Outputs and inputs.
    pub fn sides(&self) -> (usize, usize) {
        (self.weight.dims()[0], self.inputs)
    }

    /// One weight of the outputs of all `parts`; none where their inputs differ.
    ///
    /// # Errors
    /// Memory that ran out.
    pub fn joined(parts: &[&Self]) -> Result<Option<Self>> {
        let Some(first) = parts.first() else {
            return Ok(None);
        };
        if parts.iter().any(|part| part.inputs != first.inputs) {
            return Ok(None);
        }
        let weights: Vec<&Tensor> = parts.iter().map(|part| &part.weight).collect();
        let weight = concatenate(&weights, 0)?;
        Ok(Some(Self {
            made: Made::now(&weight),
            weight,
            inputs: first.inputs,
        }))
    }
}

/// `steps(x wᵀ)`: `[.., inputs]` to `[.., outputs]`. Eight rows or fewer of f32 stay f32 throughout.
///
/// # Errors
/// As the module says.
pub fn linear(x: &Tensor, w: &LinearWeight, after: &Steps) -> Result<Tensor> {
    linear_by(x, w, after, None)
}

/// As [`linear`] by a given tile, to test and time it; on Hopper alone.
///
/// # Errors
/// As [`linear`].
pub fn linear_by(
    x: &Tensor,
    w: &LinearWeight,
    after: &Steps,
    tile: Option<Tile>,
) -> Result<Tensor> {
    let device = device_of("linear", &[x, &w.weight])?;
    let (outputs, inputs) = w.sides();
    if x.width() != inputs || x.dims().is_empty() {
        let expected = format!("[.., {inputs}]");
        return Err(Error::shape("linear", x.dims(), &expected));
    }
    let rows = x.rows();
    within("linear", x, &[rows, inputs, outputs])?;
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(outputs);
    let depth = w.weight.width();
    let x = padded_width(x, CHUNK)?;
    let narrow =
        device.element() == Element::Bf16 && rows <= few_rows::MOST && !after.has_shortcut();
    if narrow && (rows > FEW_ROWS || x.element() == Element::Bf16) {
        let x = cast(&x, Element::Bf16)?;
        let y = device.unset(&dims, after.element(&x))?;
        few_rows::run(&x, few_rows::Weights::Halves(&w.weight), &y, after)?;
        return Ok(y);
    }
    if rows <= FEW_ROWS {
        let element = match x.element() {
            _ if after.wide => Element::F32,
            Element::F32 => Element::F32,
            _ => device.element(),
        };
        let y = device.unset(&dims, element)?;
        let arguments = Arguments::new()
            .structure(&x.array())
            .structure(&w.weight.array())
            .pointer(optional("linear", after.bias, outputs)?)
            .structure(&y.array())
            .int(rows)
            .int(outputs)
            .int(depth)
            .int(after.activation as usize);
        // SAFETY: sizes were checked above; rows, columns and depth are those of the buffers.
        unsafe {
            device.launch(
                ("few_rows", "few_rows_linear"),
                [outputs.div_ceil(8), 1, 1],
                THREADS,
                0,
                &arguments,
            )?
        };
        let rest = Steps {
            gate: after.gate,
            residual: after.residual,
            ..Steps::default()
        };
        return match (rest.gate, rest.residual) {
            (None, None) => Ok(y),
            _ => steps(&y, &rest),
        };
    }
    let x = cast(&x, device.element())?;
    let y = device.unset(&dims, after.element(&x))?;
    if tiles::is_hopper(device) {
        let product = tiles::Product {
            rows,
            part: outputs,
            parts: 1,
            depth,
            early: w.made.is_older(&w.weight),
            tile,
        };
        let steps = after.structure("linear", &y)?;
        tiles::linear(&x, &w.weight, &product, &steps)?;
        return Ok(y);
    }
    let kernel = kernel(device.element());
    let arguments = Arguments::new()
        .pointer(x.address())
        .pointer(w.weight.address())
        .int(rows)
        .int(outputs)
        .int(depth)
        .structure(&after.structure("linear", &y)?);
    let grid = [outputs.div_ceil(kernel.tile), rows.div_ceil(kernel.tile), 1];
    grid_fits("linear", &x, grid)?;
    // SAFETY: sizes were checked above; depth divides by the chunk, and both operands have the device's type.
    unsafe { device.launch(kernel.linear, grid, THREADS, kernel.shared, &arguments)? };
    Ok(y)
}

/// Layers of equally many outputs that share their input: `w` has the weights of `count` of them and `bias` their
/// biases, one after the other. Results are those of the layers `which`.
///
/// # Errors
/// As the module says.
pub fn linear_parts(
    x: &Tensor,
    w: &LinearWeight,
    bias: Option<&Tensor>,
    count: usize,
    which: Range<usize>,
) -> Result<Vec<Tensor>> {
    let (outputs, inputs) = w.sides();
    let part = outputs / count.max(1);
    if count == 0 || outputs != count * part || which.end > count {
        let expected = format!("the outputs of {count} layers, with {which:?} of them");
        return Err(Error::shape("linear_parts", w.weight.dims(), &expected));
    }
    let device = device_of("linear_parts", &[x, &w.weight])?;
    let (rows, depth) = (x.rows(), w.weight.width());
    let of = |parts: Range<usize>| -> Result<(LinearWeight, Option<Tensor>)> {
        let outputs = parts.start * part..parts.end * part;
        let bias = bias.map(|bias| bias.part(outputs.start, &[outputs.len()]));
        Ok((w.of(outputs)?, bias.transpose()?))
    };
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(part);
    let together = tiles::is_hopper(device)
        && rows > few_rows::MOST
        && part.is_multiple_of(CHUNK)
        && x.width() == inputs;
    if !together {
        let each = which.map(|at| {
            let (w, bias) = of(at..at + 1)?;
            let steps = Steps {
                bias: bias.as_ref(),
                ..Steps::default()
            };
            linear(x, &w, &steps)
        });
        return each.collect();
    }
    within("linear_parts", x, &[rows, inputs, outputs])?;
    let parts = which.len();
    let (w, bias) = of(which)?;
    let x = cast(&padded_width(x, CHUNK)?, device.element())?;
    let y = device.unset(&[rows, parts * part], device.element())?;
    let steps = Steps {
        bias: bias.as_ref(),
        ..Steps::default()
    };
    let steps = steps.structure("linear_parts", &y)?;
    let product = tiles::Product {
        rows,
        part,
        parts,
        depth,
        early: w.made.is_older(&w.weight),
        tile: None,
    };
    tiles::linear(&x, &w.weight, &product, &steps)?;
    (0..parts)
        .map(|at| y.part(at * rows * part, &dims))
        .collect()
}

/// A grid has at most 65535 blocks along y.
fn grid_fits(operation: &str, x: &Tensor, grid: [usize; 3]) -> Result<()> {
    match grid[1] <= 65_535 {
        true => Ok(()),
        false => Err(Error::shape(
            operation,
            x.dims(),
            "fewer rows; run it in parts",
        )),
    }
}

/// A convolution's filter, ready for use.
#[derive(Clone, Debug)]
pub struct ConvWeight {
    /// `[outputs, side, side, inputs]`, inputs filled with zeros to a multiple of [`CHUNK`].
    weight: Tensor,
    /// The four filters of a doubled map, made at first use.
    phases: OnceLock<Tensor>,
    inputs: usize,
    stride: usize,
    padding: usize,
    made: Made,
}

impl ConvWeight {
    /// From `[outputs, side, side, inputs]` in any type.
    ///
    /// # Errors
    /// Other shapes, or memory that ran out.
    pub fn new(weight: &Tensor, stride: usize, padding: usize) -> Result<Self> {
        let inputs = match *weight.dims() {
            [outputs, side, other, inputs]
                if side == other && side > 0 && outputs > 0 && stride > 0 =>
            {
                inputs
            }
            _ => {
                return Err(Error::shape(
                    "conv2d",
                    weight.dims(),
                    "[outputs, side, side, inputs]",
                ));
            }
        };
        let weight = padded_width(weight, CHUNK)?;
        let weight = cast(&weight, weight.device().element())?;
        Ok(Self {
            made: Made::now(&weight),
            weight,
            phases: OnceLock::new(),
            inputs,
            stride,
            padding,
        })
    }

    /// Outputs, side of the filter, and inputs.
    pub fn sides(&self) -> (usize, usize, usize) {
        (self.weight.dims()[0], self.weight.dims()[1], self.inputs)
    }

    /// `[outputs, side, side, inputs]`, inputs filled with zeros to a multiple of [`CHUNK`].
    pub(super) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Whether it can be run over a doubled map that is not made.
    pub fn doubles(&self) -> bool {
        self.weight.dims()[1] == 3 && self.stride == 1 && self.padding == 1
    }

    fn phases(&self) -> Result<&Tensor> {
        if let Some(made) = self.phases.get() {
            return Ok(made);
        }
        let (outputs, channels) = (self.weight.dims()[0], self.weight.width());
        let device = self.weight.device();
        let made = device.unset(&[4, outputs, 2, 2, channels], device.element())?;
        let arguments = Arguments::new()
            .structure(&self.weight.array())
            .structure(&made.array())
            .int(outputs)
            .int(channels);
        // SAFETY: the filter is 3×3, as the caller saw to, and there is room for four of 2×2.
        unsafe {
            device.launch(
                ("copy", "filters_of_phases"),
                blocks(made.count()),
                THREADS,
                0,
                &arguments,
            )?
        };
        Ok(self.phases.get_or_init(|| made))
    }
}

/// `steps(convolution)`; with `doubled` of the map of which every pixel is a square of 2×2, which is not made
/// (3×3 filters of stride 1 and padding 1).
///
/// # Errors
/// As the module says.
pub fn conv2d(x: &Tensor, w: &ConvWeight, doubled: bool, after: &Steps) -> Result<Tensor> {
    conv2d_by(x, w, doubled, after, None)
}

/// As [`conv2d`] by a given tile, to test and time it; on Hopper alone, for filters of stride one.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_by(
    x: &Tensor,
    w: &ConvWeight,
    doubled: bool,
    after: &Steps,
    tile: Option<Tile>,
) -> Result<Tensor> {
    let device = device_of("conv2d", &[x, &w.weight])?;
    let [batch, height, width, channels] = map_of("conv2d", x)?;
    let (outputs, side, inputs) = w.sides();
    let fits =
        channels == inputs && height + 2 * w.padding >= side && width + 2 * w.padding >= side;
    if !fits || (doubled && !w.doubles()) {
        let expected = format!("[batch, height, width, {inputs}] of at least {side}×{side}");
        return Err(Error::shape("conv2d", x.dims(), &expected));
    }
    if !doubled && let Some(y) = ends::conv2d(x, w, after)? {
        return Ok(y);
    }
    let x = cast(&padded_width(x, CHUNK)?, device.element())?;
    let [rows, columns] = [height, width].map(|size| match doubled {
        true => size,
        false => (size + 2 * w.padding - side) / w.stride + 1,
    });
    let scale = 1 + usize::from(doubled);
    let y = device.unset(
        &[batch, scale * rows, scale * columns, outputs],
        after.element(&x),
    )?;
    within(
        "conv2d",
        &x,
        &[y.rows(), x.rows(), side * side * x.width(), outputs],
    )?;
    let (weight, side, phases) = match doubled {
        true => (w.phases()?, 2, 4),
        false => (&w.weight, side, 1),
    };
    // A 1×1 filter is a linear layer.
    let on_hopper = w.stride == 1 && tiles::is_hopper(device);
    // The filters of a doubled map are made at first use.
    let early = !doubled && w.made.is_older(weight);
    if on_hopper && side == 1 && w.padding == 0 {
        let product = tiles::Product {
            rows: y.rows(),
            part: outputs,
            parts: 1,
            depth: x.width(),
            early,
            tile,
        };
        let steps = after.structure("conv2d", &y)?;
        tiles::linear(&x, weight, &product, &steps)?;
        return Ok(y);
    }
    if on_hopper && side <= 3 {
        let window = tiles::Window {
            map: [batch, height, width, x.width()],
            positions: [rows, columns],
            side,
            padding: w.padding,
            phases,
            early,
        };
        tiles::convolution(&x, weight, &y, &window, outputs, after, tile)?;
        return Ok(y);
    }
    let window = [
        batch,
        height,
        width,
        x.width(),
        rows,
        columns,
        side,
        w.stride,
        w.padding,
        w.padding,
        phases,
    ];
    let kernel = kernel(device.element());
    let arguments = Arguments::new()
        .pointer(x.address())
        .pointer(weight.address())
        .structure(&Structure::new().ints(&window))
        .int(outputs)
        .structure(&after.structure("conv2d", &y)?);
    let positions = batch * rows * columns;
    let grid = [
        outputs.div_ceil(kernel.tile),
        positions.div_ceil(kernel.tile),
        phases,
    ];
    grid_fits("conv2d", &x, grid)?;
    // SAFETY: sizes were checked above; channels divide by the chunk, and both operands have the device's type.
    unsafe { device.launch(kernel.convolution, grid, THREADS, kernel.shared, &arguments)? };
    Ok(y)
}
