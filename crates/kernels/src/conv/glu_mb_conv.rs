//! The gated inverted bottleneck of SANA's Mix-FFN and DC-AE's EfficientViT block: 1×1 to twice the
//! hidden width, SiLU, depthwise 3×3, value·SiLU(gate), 1×1 back.
//!
//! It runs in strips of rows, of which the last two expanded ones are kept for the next strip: the
//! wide map is as large as a cache, nothing is computed twice, and the values are those of the whole
//! map.

use super::depthwise;
use crate::gemm::packed::{self, PackedMatrix};
use crate::int4::{self, Activations, Int4Linear};
use crate::parallel;
use crate::pointwise::activation::Activation;
use crate::pointwise::epilogue::Epilogue;
use crate::scratch::with_buffer;
use crate::simd::cache;

/// Sizes of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GluMbConvShape {
    /// Pictures.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// One of the 1×1 convolutions.
#[derive(Clone, Copy, Debug)]
pub enum Pointwise<'a> {
    /// A weight, and a bias as long as its outputs.
    Packed(&'a PackedMatrix, Option<&'a [f32]>),
    /// A layer over 4-bit weights, and how its input is rounded.
    Int4(&'a Int4Linear, Activations),
}

impl Pointwise<'_> {
    /// Width of the result.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Packed(matrix, _) => matrix.outputs(),
            Self::Int4(layer, _) => layer.outputs(),
        }
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Packed(matrix, _) => matrix.inputs(),
            Self::Int4(layer, _) => layer.inputs(),
        }
    }

    fn forward(&self, x: &[f32], steps: &Epilogue, y: &mut [f32]) {
        match *self {
            Self::Packed(matrix, bias) => {
                let steps = Epilogue { bias, ..*steps };
                packed::forward(x, matrix, y, |row, run| {
                    steps.apply(row, run, matrix.outputs());
                });
            }
            Self::Int4(layer, activations) => int4::forward(x, layer, activations, steps, y),
        }
    }
}

/// The parameters.
#[derive(Clone, Copy, Debug)]
pub struct GluMbConv<'a> {
    /// To `2·hidden`, values first, then gates.
    pub inverted: Pointwise<'a>,
    /// `[9, 2·hidden]`
    pub depth: &'a [f32],
    /// `[2·hidden]`
    pub depth_bias: &'a [f32],
    /// From `hidden`.
    pub point: Pointwise<'a>,
}

/// Expanded values of a strip: a quarter of a last-level cache of 32 MiB, or as much more or less as
/// this machine's has.
fn strip() -> usize {
    cache::by_third_level(1 << 21)
}

/// Rows a strip has at least, so that keeping two of them costs little.
const LEAST_ROWS: usize = 4;

/// `y = layer(x)`, followed by `steps` without a bias.
///
/// # Panics
/// When the lengths do not fit the sizes.
pub fn forward(
    shape: &GluMbConvShape,
    x: &[f32],
    layer: &GluMbConv,
    steps: &Epilogue,
    y: &mut [f32],
) {
    let wide = layer.inverted.outputs();
    let rows = strip() / (shape.width * wide).max(1);
    forward_in_strips(rows.max(LEAST_ROWS), shape, x, layer, steps, y);
}

fn forward_in_strips(
    rows: usize,
    shape: &GluMbConvShape,
    x: &[f32],
    layer: &GluMbConv,
    steps: &Epilogue,
    y: &mut [f32],
) {
    let GluMbConvShape {
        batch,
        height,
        width,
    } = *shape;
    let (wide, half) = (layer.inverted.outputs(), layer.point.inputs());
    let (inputs, outputs) = (layer.inverted.inputs(), layer.point.outputs());
    assert_eq!(wide, 2 * half, "values and gates");
    assert_eq!(
        x.len(),
        batch * height * width * inputs,
        "input of {shape:?}"
    );
    assert_eq!(
        y.len(),
        batch * height * width * outputs,
        "output of {shape:?}"
    );
    assert!(
        layer.depth.len() == 9 * wide && layer.depth_bias.len() == wide,
        "depthwise parameters of {wide} channels"
    );
    if x.is_empty() || y.is_empty() {
        return;
    }
    let activated = Epilogue {
        activation: Some(Activation::Silu),
        ..Epilogue::default()
    };
    let rows = rows.min(height);
    let line = width * wide;
    with_buffer((rows + 2) * line, |expanded| {
        with_buffer(rows * width * half, |gated| {
            for picture in 0..batch {
                // Rows `top..filled` are expanded and stand at the start of the buffer.
                let (mut top, mut filled) = (0, 0);
                for start in (0..height).step_by(rows) {
                    let end = (start + rows).min(height);
                    let (first, last) = (start.saturating_sub(1), (end + 1).min(height));
                    let kept = filled.max(first) - first;
                    expanded.copy_within((first - top) * line..(first - top + kept) * line, 0);
                    let pixel = (picture * height + first + kept) * width;
                    layer.inverted.forward(
                        &x[pixel * inputs..(picture * height + last) * width * inputs],
                        &activated,
                        &mut expanded[kept * line..(last - first) * line],
                    );
                    (top, filled) = (first, last);

                    let expanded = &*expanded;
                    let gated = &mut gated[..(end - start) * width * half];
                    parallel::rows_mut(gated, width * half, |row, chunk| {
                        let at = |row: usize| &expanded[(row - first) * line..][..line];
                        let lines = |offset: usize| {
                            let row = start + row + offset;
                            let below = Some(row + 1).filter(|row| *row < height);
                            [row.checked_sub(1).map(at), Some(at(row)), below.map(at)]
                        };
                        let (w, bias) = (layer.depth, layer.depth_bias);
                        depthwise::gated(lines, width, half, w, bias, chunk);
                    });
                    let pixel = (picture * height + start) * width;
                    let steps = Epilogue {
                        first_row: steps.first_row + pixel,
                        ..*steps
                    };
                    let y = &mut y[pixel * outputs..][..(end - start) * width * outputs];
                    layer.point.forward(gated, &steps, y);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::depthwise::DepthwiseShape;
    use crate::int4::{Branch, Int4Weight};
    use crate::pointwise::activation;
    use crate::pointwise::epilogue::{Gate, Residual};
    use crate::reference::{self, assert_close, noise};

    /// The depthwise convolution and the gate of a whole expanded map.
    fn gated(shape: &GluMbConvShape, expanded: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let map = DepthwiseShape {
            batch: shape.batch,
            height: shape.height,
            width: shape.width,
            channels: bias.len(),
            kernel: 3,
        };
        let mixed = reference::depthwise(&map, expanded, w, bias);
        let mut gated = vec![0.0; mixed.len() / 2];
        activation::gated_silu(&mixed, bias.len() / 2, &mut gated);
        gated
    }

    #[test]
    fn strips_of_any_height_match_the_steps_one_by_one() {
        for (height, width, inputs, half, outputs) in
            [(1, 1, 3, 2, 3), (7, 5, 8, 33, 9), (6, 4, 16, 64, 16)]
        {
            let (batch, wide) = (2, 2 * half);
            let shape = GluMbConvShape {
                batch,
                height,
                width,
            };
            let x = noise(batch * height * width * inputs, 1);
            let (inverted, point) = (noise(wide * inputs, 2), noise(outputs * half, 3));
            let (bias, depth_bias) = (noise(wide, 4), noise(wide, 5));
            let depth = noise(9 * wide, 6);

            let expanded = reference::linear(&x, inputs, &inverted, wide, &bias);
            let mut active = vec![0.0; expanded.len()];
            activation::forward(Activation::Silu, &expanded, &mut active);
            let gated = gated(&shape, &active, &depth, &depth_bias);
            let want = reference::linear(&gated, half, &point, outputs, &vec![0.0; outputs]);

            let (inverted, point) = (
                PackedMatrix::from_f32(&inverted, wide, inputs),
                PackedMatrix::from_f32(&point, outputs, half),
            );
            let layer = GluMbConv {
                inverted: Pointwise::Packed(&inverted, Some(&bias)),
                depth: &depth,
                depth_bias: &depth_bias,
                point: Pointwise::Packed(&point, None),
            };
            let residual = noise(want.len(), 7);
            let want: Vec<f32> = want.iter().zip(&residual).map(|(y, r)| y + r).collect();
            let steps = Epilogue {
                residual: Some(Residual::Rows(&residual)),
                ..Epilogue::default()
            };
            for rows in [1, 2, 3, 100] {
                let mut y = vec![f32::NAN; want.len()];
                forward_in_strips(rows, &shape, &x, &layer, &steps, &mut y);
                assert_close(&y, &want, 1e-5);
            }
        }
    }

    #[test]
    fn strips_of_4_bit_layers_match_the_steps_one_by_one() {
        let (height, width, inputs, half, outputs) = (7, 9, 70, 64, 24);
        let wide = 2 * half;
        let (batch, pixels) = (2, 2 * height * width);
        let shape = GluMbConvShape {
            batch,
            height,
            width,
        };
        let pack = |outputs: usize, inputs: usize| {
            let groups = inputs.div_ceil(int4::GROUP);
            let codes = noise(outputs * groups * int4::GROUP, 1);
            let codes: Vec<i8> = codes.iter().map(|v| (v * 7.0).round() as i8).collect();
            Int4Linear::new(&Int4Weight {
                outputs: vec![outputs],
                inputs,
                codes,
                scales: vec![0.0625; outputs * groups],
                branch: Some(Branch {
                    rank: 8,
                    down: noise(8 * inputs, 2),
                    up: noise(outputs * 8, 3),
                }),
                bias: Some(noise(outputs, 4)),
                ..Int4Weight::default()
            })
        };
        let (inverted, point) = (pack(wide, inputs), pack(outputs, half));
        let (depth, depth_bias) = (noise(9 * wide, 5), noise(wide, 6));
        let (x, gates) = (noise(pixels * inputs, 7), noise(batch * outputs, 8));
        let steps = Epilogue {
            gate: Some(Gate {
                vectors: &gates,
                rows: height * width,
            }),
            ..Epilogue::default()
        };

        let eight = Activations::Eight;
        let activated = Epilogue {
            activation: Some(Activation::Silu),
            ..Epilogue::default()
        };
        let mut expanded = vec![0.0; pixels * wide];
        int4::forward(&x, &inverted, eight, &activated, &mut expanded);
        let gated = gated(&shape, &expanded, &depth, &depth_bias);
        let mut want = vec![0.0; pixels * outputs];
        int4::forward(&gated, &point, eight, &steps, &mut want);

        let layer = GluMbConv {
            inverted: Pointwise::Int4(&inverted, eight),
            depth: &depth,
            depth_bias: &depth_bias,
            point: Pointwise::Int4(&point, eight),
        };
        for rows in [1, 3, 100] {
            let mut y = vec![f32::NAN; want.len()];
            forward_in_strips(rows, &shape, &x, &layer, &steps, &mut y);
            // A value may round to a neighbouring code.
            assert_close(&y, &want, 3e-3);
        }
    }
}
