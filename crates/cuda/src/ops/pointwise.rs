//! One value, or a few of one place, at a time.

use super::copy::broadcast_strides;
use super::steps::{Activation, Residual, Steps};
use super::walk::Walk;
use super::{THREADS, blocks, device_of};
use crate::device::Device;
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor, array};

/// `activation(factor·x + addend)` as another type.
pub(super) fn unary(
    x: &Tensor,
    factor: f32,
    addend: f32,
    activation: Activation,
    element: Element,
) -> Result<Tensor> {
    if x.element() == Element::U32 || element == Element::U32 {
        return Err(Error::shape("pointwise", x.dims(), "floats, not indices"));
    }
    let y = x.device().unset(x.dims(), element)?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .structure(&y.array())
        .long(x.count())
        .float(factor)
        .float(addend)
        .int(activation as usize);
    let blocks = blocks(x.count().div_ceil(8));
    // SAFETY: both have so many values.
    unsafe {
        x.device()
            .launch(("pointwise", "unary"), blocks, THREADS, 0, &arguments)?
    };
    Ok(y)
}

/// `factor·x + addend`, of the type of `x`.
///
/// # Errors
/// As the module says.
pub fn affine(x: &Tensor, factor: f32, addend: f32) -> Result<Tensor> {
    unary(x, factor, addend, Activation::Identity, x.element())
}

/// A function of every value, of the type of `x`.
///
/// # Errors
/// As the module says.
pub fn activation(x: &Tensor, which: Activation) -> Result<Tensor> {
    unary(x, 1.0, 0.0, which, x.element())
}

/// What [`binary`] does with two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b.
    Add,
    /// a − b.
    Subtract,
    /// a·b.
    Multiply,
    /// a / b.
    Divide,
}

/// Two tensors value by value, sides of one repeated; f32 if one of them is.
///
/// # Errors
/// As the module says.
pub fn binary(operation: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let device = device_of("arithmetic", &[a, b])?;
    let floats = [a, b].iter().all(|x| x.element() != Element::U32);
    if operation == Binary::Add && a.dims() == b.dims() && floats {
        // Sums of one shape need no strides. The wider one decides the type, as a residual does.
        let (x, residual) = match a.element() {
            Element::F32 => (b, a),
            _ => (a, b),
        };
        let sum = Steps {
            residual: Some(Residual::Rows(residual)),
            ..Steps::default()
        };
        return steps(x, &sum);
    }
    let rank = a.dims().len().max(b.dims().len());
    let side = |x: &Tensor, at: usize| match (at + x.dims().len()).checked_sub(rank) {
        Some(own) => x.dims()[own],
        None => 1,
    };
    let dims: Vec<usize> = (0..rank)
        .map(|at| match (side(a, at), side(b, at)) {
            (1, other) => other,
            (own, _) => own,
        })
        .collect();
    let (left, right) = (
        broadcast_strides(a.dims(), &dims),
        broadcast_strides(b.dims(), &dims),
    );
    let walk = left
        .zip(right)
        .map(|(left, right)| Walk::new(&dims, [&left, &right]));
    let Some(walk) = walk.filter(|walk| floats && walk.fits()) else {
        return Err(Error::shape(
            "arithmetic",
            a.dims(),
            &format!("floats of a shape that goes with {:?}", b.dims()),
        ));
    };
    let wide = [a, b].iter().any(|x| x.element() == Element::F32);
    let y = device.unset(&dims, if wide { Element::F32 } else { Element::Bf16 })?;
    let (kernel, walk) = match walk.by_eights(true) {
        Some(eights) => ("binary_eights", eights),
        None => ("binary", walk),
    };
    let arguments = Arguments::new()
        .structure(&a.array())
        .structure(&b.array())
        .structure(&y.array())
        .int(walk.count())
        .int(operation as usize)
        .structure(&walk.structure());
    let blocks = blocks(walk.count());
    // SAFETY: the strides are those of the operands, and `y` has a value for each place.
    unsafe { device.launch(("pointwise", kernel), blocks, THREADS, 0, &arguments)? };
    Ok(y)
}

/// The steps after a layer, alone.
///
/// # Errors
/// As the module says.
pub fn steps(x: &Tensor, after: &Steps) -> Result<Tensor> {
    let element = match after.residual {
        Some(_) => after.element(x),
        None => x.element(),
    };
    let y = x.device().unset(x.dims(), element)?;
    let channels = x.width();
    let arguments = Arguments::new()
        .structure(&x.array())
        .long(x.rows())
        .int(channels)
        .structure(&after.structure("epilogue", &y)?);
    let blocks = blocks(x.rows() * channels.div_ceil(8));
    // SAFETY: both have the same shape, and `structure` checked the rest.
    unsafe {
        x.device()
            .launch(("pointwise", "steps_alone"), blocks, THREADS, 0, &arguments)?
    };
    Ok(y)
}

/// `[.., 2h]` to `[.., h]`, of the type of `x`: with SiLU values·SiLU(gates), values first; with GELU by tanh
/// GELU(gates)·values, gates first.
///
/// # Errors
/// As the module says.
pub fn gated(x: &Tensor, which: Activation) -> Result<Tensor> {
    let half = x.width() / 2;
    let fits = x.width().is_multiple_of(2)
        && half > 0
        && matches!(which, Activation::Silu | Activation::GeluTanh);
    if !fits {
        return Err(Error::shape(
            "gated",
            x.dims(),
            "an even last side, and SiLU or GELU by tanh",
        ));
    }
    let second = array(
        x.address() + (half * x.element().bytes()) as u64,
        x.element(),
    );
    gate(x, &second, half, x.width(), which as usize)
}

/// `activation(gates)·values`, of one shape and the type of the gates, by SiLU or GELU by tanh.
///
/// # Errors
/// As the module says.
pub fn gated_pair(gates: &Tensor, values: &Tensor, which: Activation) -> Result<Tensor> {
    device_of("gated", &[gates, values])?;
    let mode = match which {
        Activation::Silu => SILU_FIRST,
        other => other as usize,
    };
    let known = matches!(which, Activation::Silu | Activation::GeluTanh);
    if gates.dims() != values.dims() || !known || !values.element().is_float() {
        return Err(Error::shape(
            "gated",
            values.dims(),
            &format!("{:?} floats, and SiLU or GELU by tanh", gates.dims()),
        ));
    }
    let width = gates.width();
    gate(gates, &values.array(), width, width, mode)
}

/// The kernel's word for the SiLU of the first.
const SILU_FIRST: usize = 16;

/// Runs the kernel over the rows of `x`, `half` values of which each begin every `stride`.
fn gate(x: &Tensor, second: &Structure, half: usize, stride: usize, mode: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(half);
    let y = x.device().unset(&dims, x.element())?;
    let rows = y.count() / half.max(1);
    let arguments = Arguments::new()
        .structure(&x.array())
        .structure(second)
        .structure(&y.array())
        .long(rows)
        .int(half)
        .int(stride)
        .int(mode);
    // Eight values a thread where the kernel can.
    let each = if half.is_multiple_of(8) { 8 } else { 1 };
    let blocks = blocks(y.count() / each);
    // SAFETY: both have a value for each of y's, as callers saw to.
    unsafe {
        x.device()
            .launch(("pointwise", "gated"), blocks, THREADS, 0, &arguments)?
    };
    Ok(y)
}

/// Sets the word at an address where `count` values of `x` have NaN or infinity.
///
/// # Safety
/// So many floats lie there, at an address that 16 divides, and the word in a buffer; both until the kernel has run.
pub(crate) unsafe fn flag_not_finite(
    device: &Device,
    x: &Structure,
    count: usize,
    word: u64,
) -> Result<()> {
    let arguments = Arguments::new().structure(x).long(count).pointer(word);
    let [blocks, ..] = blocks(count.div_ceil(8));
    // SAFETY: the caller's.
    unsafe {
        device.launch(
            ("pointwise", "all_finite"),
            [blocks.min(2048), 1, 1],
            THREADS,
            0,
            &arguments,
        )
    }
}
