//! What follows a layer in the same pass over memory.

use super::{optional, vector};
use crate::driver::Structure;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// A function of every value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// x·sigmoid(x).
    Silu,
    /// GELU by the tanh formula.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
}

/// Between a map and another of twice or half its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortcutKind {
    /// Channels repeated, then moved into squares of 2×2 pixels.
    Up,
    /// Squares of 2×2 pixels moved into channels, then means of neighbouring ones.
    Down,
}

/// What is added.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// A tensor of the result's shape.
    Rows(&'a Tensor),
    /// A map of half or twice the size.
    Shortcut(&'a Tensor, ShortcutKind),
}

/// Steps in this order: bias, activation, gate, residual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps<'a> {
    /// `[channels]`, f32.
    pub bias: Option<&'a Tensor>,
    /// Of every value.
    pub activation: Activation,
    /// `[groups, channels]`, f32: multiplies the rows of each group.
    pub gate: Option<&'a Tensor>,
    /// Added at the end.
    pub residual: Option<Residual<'a>>,
    /// Whether the result is f32, whatever the device keeps.
    pub wide: bool,
}

impl Steps<'_> {
    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        let plain = self.activation == Activation::Identity && !self.wide;
        plain && self.bias.is_none() && self.gate.is_none() && self.residual.is_none()
    }

    /// Whether what is added is a map of another size.
    pub(super) fn has_shortcut(&self) -> bool {
        matches!(self.residual, Some(Residual::Shortcut(..)))
    }

    /// The type of the result: a residual stream keeps its own.
    pub(super) fn element(&self, x: &Tensor) -> Element {
        match self.residual {
            _ if self.wide => Element::F32,
            Some(Residual::Rows(rows)) => rows.element(),
            _ => x.device().element(),
        }
    }

    /// As kernels take them, for a result `y`.
    pub(super) fn structure(&self, operation: &str, y: &Tensor) -> Result<Structure> {
        let (channels, rows) = (y.width(), y.rows());
        let bias = optional(operation, self.bias, channels)?;
        let (gate, rows_per_gate) = match self.gate {
            None => (0, 1),
            Some(gate) => {
                let groups = gate.count() / channels.max(1);
                if groups == 0 || rows % groups != 0 {
                    let expected =
                        format!("a gate of {channels} channels for groups of {rows} rows");
                    return Err(Error::shape(operation, gate.dims(), &expected));
                }
                (vector(operation, gate, groups * channels)?, rows / groups)
            }
        };
        let nothing = Structure::new().pointer(0).int(0).int(0);
        let (residual, kind, inputs) = match self.residual {
            None => (nothing, 0, 0),
            Some(Residual::Rows(x)) if x.dims() == y.dims() => (x.array(), 1, 0),
            Some(Residual::Rows(x)) => {
                return Err(Error::shape(
                    operation,
                    x.dims(),
                    &format!("a residual {:?}", y.dims()),
                ));
            }
            Some(Residual::Shortcut(x, kind)) => {
                fits(operation, x, kind, y)?;
                let number = if kind == ShortcutKind::Up { 2 } else { 3 };
                (x.array(), number, x.width())
            }
        };
        let (height, width) = match y.dims() {
            [_, height, width, _] => (*height, *width),
            _ => (1, 1),
        };
        Ok(y.array()
            .nested(residual)
            .pointer(bias)
            .pointer(gate)
            .ints(&[
                rows_per_gate,
                self.activation as usize,
                kind,
                inputs,
                height,
                width,
            ]))
    }
}

/// That a shortcut's map goes with a result.
fn fits(operation: &str, x: &Tensor, kind: ShortcutKind, y: &Tensor) -> Result<()> {
    let good = match (x.dims(), y.dims()) {
        (&[xb, xh, xw, xc], &[yb, yh, yw, yc]) if xb == yb && xc > 0 && yc > 0 => match kind {
            ShortcutKind::Up => yh == 2 * xh && yw == 2 * xw && (4 * yc).is_multiple_of(xc),
            ShortcutKind::Down => xh == 2 * yh && xw == 2 * yw && (4 * xc).is_multiple_of(yc),
        },
        _ => false,
    };
    match good {
        true => Ok(()),
        false => {
            let expected = format!("a map of half or twice the sides of {:?}", y.dims());
            Err(Error::shape(operation, x.dims(), &expected))
        }
    }
}
