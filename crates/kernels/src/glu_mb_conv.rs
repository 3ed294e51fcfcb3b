//! The gated inverted bottleneck of SANA's Mix-FFN and DC-AE's EfficientViT block: 1×1 to twice the
//! hidden width, SiLU, depthwise 3×3, value·SiLU(gate), 1×1 back.
//!
//! It runs in strips of rows, of which the last two expanded ones are kept for the next strip: the
//! wide map is as large as a cache, nothing is computed twice, and the values are those of the whole
//! map.

use crate::activation::Activation;
use crate::depthwise;
use crate::epilogue::Epilogue;
use crate::packed::{self, PackedMatrix};
use crate::parallel;
use crate::scratch::with_buffer;

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

/// The parameters.
#[derive(Clone, Copy, Debug)]
pub struct GluMbConv<'a> {
    /// `[2·hidden, inputs]`, values first, then gates.
    pub inverted: &'a PackedMatrix,
    /// `[2·hidden]`
    pub inverted_bias: Option<&'a [f32]>,
    /// `[9, 2·hidden]`
    pub depth: &'a [f32],
    /// `[2·hidden]`
    pub depth_bias: &'a [f32],
    /// `[outputs, hidden]`
    pub point: &'a PackedMatrix,
}

/// Expanded values of a strip: 8 MiB.
const STRIP: usize = 1 << 21;
/// Rows a strip has at least, so that keeping two of them costs little.
const LEAST_ROWS: usize = 4;

/// `y = layer(x)`; every finished run of pixels goes through `finish(first_pixel, values)`.
///
/// # Panics
/// When the lengths do not fit the sizes.
pub fn forward<F>(shape: &GluMbConvShape, x: &[f32], layer: &GluMbConv, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let wide = layer.inverted.outputs();
    let rows = STRIP / (shape.width * wide).max(1);
    forward_in_strips(rows.max(LEAST_ROWS), shape, x, layer, y, finish);
}

fn forward_in_strips<F>(
    rows: usize,
    shape: &GluMbConvShape,
    x: &[f32],
    layer: &GluMbConv,
    y: &mut [f32],
    finish: F,
) where
    F: Fn(usize, &mut [f32]) + Sync,
{
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
        bias: layer.inverted_bias,
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
                    packed::forward(
                        &x[pixel * inputs..(picture * height + last) * width * inputs],
                        layer.inverted,
                        &mut expanded[kept * line..(last - first) * line],
                        |row, run| activated.apply(row, run, wide),
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
                    packed::forward(
                        gated,
                        layer.point,
                        &mut y[pixel * outputs..][..(end - start) * width * outputs],
                        |row, run| finish(pixel + row, run),
                    );
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation;
    use crate::depthwise::DepthwiseShape;
    use crate::reference::{self, assert_close, noise};

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
            let map = DepthwiseShape {
                batch,
                height,
                width,
                channels: wide,
                kernel: 3,
            };
            let mixed = reference::depthwise(&map, &active, &depth, &depth_bias);
            let mut gated = vec![0.0; mixed.len() / 2];
            activation::gated_silu(&mixed, half, &mut gated);
            let want = reference::linear(&gated, half, &point, outputs, &vec![0.0; outputs]);

            let (inverted, point) = (
                PackedMatrix::from_f32(&inverted, wide, inputs),
                PackedMatrix::from_f32(&point, outputs, half),
            );
            let layer = GluMbConv {
                inverted: &inverted,
                inverted_bias: Some(&bias),
                depth: &depth,
                depth_bias: &depth_bias,
                point: &point,
            };
            for rows in [1, 2, 3, 100] {
                let mut y = vec![f32::NAN; want.len()];
                forward_in_strips(rows, &shape, &x, &layer, &mut y, |_, _| {});
                assert_close(&y, &want, 1e-5);
            }
        }
    }
}
