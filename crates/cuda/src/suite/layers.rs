//! Products and convolutions.

use super::{Listed, Ready, Setting, Values, silu};
use crate::error::Result;
use crate::ops::tiles::Tile;
use crate::ops::{self, Activation, ConvWeight, LinearWeight, Residual, ShortcutKind, Steps};

pub(super) const CASES: &[Listed] = &[
    (
        "linear, bias, SiLU, gate, residual",
        &["product", "precise"],
        |s| linear(s, s.pick([200, 136, 160], [1024, 5760, 1152])),
    ),
    ("linear, odd sizes", &["product", "precise"], |s| {
        linear(s, s.pick([77, 51, 41], [301, 2305, 2301]))
    }),
    ("linear, attention width", &["product", "precise"], |s| {
        linear(s, s.pick([130, 264, 96], [1024, 3456, 1152]))
    }),
    ("linear, text encoder", &["product", "precise"], |s| {
        linear(s, s.pick([9, 128, 64], [300, 18432, 2304]))
    }),
    (
        "linear, whole numbers",
        &["product", "precise"],
        whole_numbers,
    ),
    ("linear, few rows", &["few_rows"], few_rows),
    ("conv 3x3, bias, ReLU", &["product", "precise"], |s| {
        conv(
            s,
            s.pick([2, 9, 13, 40, 72], [1, 256, 256, 512, 512]),
            3,
            1,
            None,
        )
    }),
    (
        "conv 3x3, stage of 128 channels",
        &["product", "precise"],
        |s| {
            conv(
                s,
                s.pick([1, 17, 8, 128, 128], [1, 1024, 1024, 128, 128]),
                3,
                1,
                None,
            )
        },
    ),
    ("conv 1x1", &["product", "precise"], |s| {
        conv(
            s,
            s.pick([1, 9, 16, 24, 40], [1, 128, 128, 512, 4096]),
            1,
            1,
            None,
        )
    }),
    (
        "conv 3x3 of 3 channels",
        &["ends", "precise", "copy"],
        |s| {
            conv(
                s,
                s.pick([2, 11, 37, 3, 160], [1, 1024, 1024, 3, 128]),
                3,
                1,
                None,
            )
        },
    ),
    ("conv 3x3 to 3 channels", &["ends", "precise"], |s| {
        conv(
            s,
            s.pick([2, 18, 35, 96, 3], [1, 1024, 1024, 128, 3]),
            3,
            1,
            None,
        )
    }),
    (
        "conv 3x3 of 4 channels",
        &["product", "precise", "copy"],
        |s| {
            conv(
                s,
                s.pick([1, 9, 10, 4, 16], [1, 256, 256, 4, 128]),
                3,
                1,
                None,
            )
        },
    ),
    ("conv 3x3 halving, shortcut", &["product", "precise"], |s| {
        conv(
            s,
            s.pick([2, 8, 12, 16, 32], [1, 512, 512, 128, 256]),
            3,
            2,
            Some(ShortcutKind::Down),
        )
    }),
    (
        "conv 3x3 doubling, shortcut",
        &["product", "precise", "copy"],
        |s| {
            conv(
                s,
                s.pick([2, 5, 7, 48, 24], [1, 256, 256, 512, 256]),
                3,
                1,
                Some(ShortcutKind::Up),
            )
        },
    ),
    ("depthwise 5x5", &["depthwise"], |s| {
        depthwise(s, s.pick([2, 7, 23, 66], [1, 128, 128, 1536]), 5)
    }),
    ("depthwise 3x3, odd channels", &["depthwise"], |s| {
        depthwise(s, s.pick([1, 6, 11, 7], [1, 64, 64, 513]), 3)
    }),
    ("depthwise 3x3", &["depthwise"], |s| {
        depthwise(s, s.pick([1, 9, 40, 6], [1, 1024, 1024, 32]), 3)
    }),
    ("depthwise 3x3 and gate", &["depthwise"], |s| {
        depthwise_gate(s, s.pick([2, 5, 21, 36], [1, 128, 128, 4096]))
    }),
    ("depthwise 3x3 and gate, few pixels", &["depthwise"], |s| {
        depthwise_gate(s, s.pick([1, 4, 3, 14], [1, 32, 32, 5760]))
    }),
];

pub(super) fn dot(x: &Values, from: usize, w: &Values, row: usize, depth: usize) -> f64 {
    (0..depth)
        .map(|k| x.at(from + k) * w.at(row * depth + k))
        .sum()
}

fn linear(s: &Setting, sides: [usize; 3]) -> Result<Ready> {
    linear_by(s, sides, None)
}

/// By a given tile, where the card has those.
pub(super) fn linear_by(
    s: &Setting,
    [rows, columns, depth]: [usize; 3],
    tile: Option<Tile>,
) -> Result<Ready> {
    let (x, w) = (
        s.noise(1, &[2, rows, depth])?,
        s.noise(2, &[columns, depth])?,
    );
    let (residual, bias, gate) = (
        s.noise(3, &[2, rows, columns])?,
        s.vector(4, &[columns])?,
        s.vector(5, &[2, columns])?,
    );
    let weight = LinearWeight::new(&w.tensor)?;
    let parts = (x.clone(), residual.clone(), bias.clone(), gate.clone());
    let run = move || {
        let (x, residual, bias, gate) = &parts;
        let steps = Steps {
            bias: Some(&bias.tensor),
            activation: Activation::Silu,
            gate: Some(&gate.tensor),
            residual: Some(Residual::Rows(&residual.tensor)),
            ..Steps::default()
        };
        ops::linear_by(&x.tensor, &weight, &steps, tile)
    };
    let wanted = move |at: usize| {
        let (row, column) = (at / columns, at % columns);
        let sum = dot(&x, row * depth, &w, column, depth) + bias.at(column);
        silu(sum) * gate.at(row / rows * columns + column) + residual.at(at)
    };
    let moved = s.bytes(2 * rows * (depth + 2 * columns) + columns * depth);
    Ok(Ready::new(run, wanted, (4 * rows * columns * depth, moved)))
}

/// Products of whole numbers under 256 are exact in either type.
fn whole_numbers(s: &Setting) -> Result<Ready> {
    let [rows, columns, depth] = s.pick([140, 136, 40], [1024, 1152, 60]);
    let whole = |seed: u64, count: usize| -> Vec<f32> {
        super::noise(seed, count)
            .iter()
            .map(|v| (2.0 * v).round())
            .collect()
    };
    let element = s.device.element();
    let x = s.filled(&[rows, depth], element, whole(1, rows * depth))?;
    let w = s.filled(&[columns, depth], element, whole(2, columns * depth))?;
    let weight = LinearWeight::new(&w.tensor)?;
    let tensor = x.tensor.clone();
    let run = move || ops::linear(&tensor, &weight, &Steps::default());
    let wanted = move |at: usize| dot(&x, at / columns * depth, &w, at % columns, depth);
    Ok(Ready::new(
        run,
        wanted,
        (
            2 * rows * columns * depth,
            s.bytes(rows * depth + columns * (depth + rows)),
        ),
    )
    .exactly())
}

fn few_rows(s: &Setting) -> Result<Ready> {
    let [rows, columns, depth] = s.pick([3, 50, 72], [2, 6912, 1152]);
    let (x, w, bias) = (
        s.vector(1, &[rows, depth])?,
        s.noise(2, &[columns, depth])?,
        s.vector(3, &[columns])?,
    );
    let weight = LinearWeight::new(&w.tensor)?;
    let (input, addend) = (x.tensor.clone(), bias.tensor.clone());
    let run = move || {
        let steps = Steps {
            bias: Some(&addend),
            activation: Activation::GeluTanh,
            ..Steps::default()
        };
        ops::linear(&input, &weight, &steps)
    };
    let wanted = move |at: usize| {
        let (row, column) = (at / columns, at % columns);
        super::gelu_tanh(dot(&x, row * depth, &w, column, depth) + bias.at(column))
    };
    Ok(Ready::new(
        run,
        wanted,
        (2 * rows * columns * depth, s.bytes(columns * depth)),
    ))
}

/// A convolution with what follows it: bias and ReLU, or bias and a shortcut.
fn conv(
    s: &Setting,
    dims: [usize; 5],
    side: usize,
    stride: usize,
    shortcut: Option<ShortcutKind>,
) -> Result<Ready> {
    conv_by(s, dims, side, stride, shortcut, None)
}

/// By a given tile, where the card has those.
pub(super) fn conv_by(
    s: &Setting,
    dims: [usize; 5],
    side: usize,
    stride: usize,
    shortcut: Option<ShortcutKind>,
    tile: Option<Tile>,
) -> Result<Ready> {
    let [batch, height, width, inputs, outputs] = dims;
    let doubled = shortcut == Some(ShortcutKind::Up);
    let scale = if doubled { 2 } else { 1 };
    let (down, across) = (scale * height / stride, scale * width / stride);
    let padding = side / 2;
    let (down, across) = if stride == 1 {
        (scale * height, scale * width)
    } else {
        (down, across)
    };
    let x = s.noise(1, &[batch, height, width, inputs])?;
    let w = s.noise(2, &[outputs, side, side, inputs])?;
    let bias = s.vector(3, &[outputs])?;
    let weight = ConvWeight::new(&w.tensor, stride, padding)?;
    let (map, addend) = (x.tensor.clone(), bias.tensor.clone());
    let run = move || {
        let steps = Steps {
            bias: Some(&addend),
            activation: if shortcut.is_none() {
                Activation::Relu
            } else {
                Activation::Identity
            },
            residual: shortcut.map(|kind| Residual::Shortcut(&map, kind)),
            ..Steps::default()
        };
        ops::conv2d_by(&map, &weight, doubled, &steps, tile)
    };
    let wanted = move |at: usize| {
        let (pixel, channel) = (at / outputs, at % outputs);
        let (column, row, picture) = (pixel % across, pixel / across % down, pixel / across / down);
        let value = |y: usize, x_: usize, c: usize| {
            x.at(((picture * height + y) * width + x_) * inputs + c)
        };
        let mut sum = bias.at(channel);
        for tap in 0..side * side {
            let y = (row * stride + tap / side).wrapping_sub(padding);
            let x_ = (column * stride + tap % side).wrapping_sub(padding);
            if y >= scale * height || x_ >= scale * width {
                continue;
            }
            sum += (0..inputs)
                .map(|c| {
                    value(y / scale, x_ / scale, c)
                        * w.at((channel * side * side + tap) * inputs + c)
                })
                .sum::<f64>();
        }
        match shortcut {
            None => sum.max(0.0),
            Some(ShortcutKind::Up) => {
                let moved = 4 * channel + row % 2 * 2 + column % 2;
                sum + value(row / 2, column / 2, moved / (4 * outputs / inputs))
            }
            Some(ShortcutKind::Down) => {
                let group = 4 * inputs / outputs;
                let part = |i: usize| {
                    let moved = channel * group + i;
                    value(2 * row + moved % 4 / 2, 2 * column + moved % 2, moved / 4)
                };
                sum + (0..group).map(part).sum::<f64>() / group as f64
            }
        }
    };
    let positions = batch * down * across;
    // The doubled map is four maps of 2×2 taps.
    let taps = if doubled { 4 } else { side * side };
    let moved = s.bytes(
        batch * height * width * inputs + positions * outputs + outputs * side * side * inputs,
    );
    Ok(Ready::new(
        run,
        wanted,
        (2 * positions * outputs * taps * inputs, moved),
    ))
}

/// The sum at a pixel and channel.
fn around(
    x: &Values,
    w: &Values,
    [batch, height, width, channels]: [usize; 4],
    side: usize,
    at: usize,
) -> f64 {
    let (pixel, channel) = (at / channels, at % channels);
    let (column, row, picture) = (
        pixel % width,
        pixel / width % height,
        pixel / width / height,
    );
    debug_assert!(picture < batch);
    let tap = |tap: usize| {
        let y = (row + tap / side).wrapping_sub(side / 2);
        let x_ = (column + tap % side).wrapping_sub(side / 2);
        match y < height && x_ < width {
            true => {
                x.at(((picture * height + y) * width + x_) * channels + channel)
                    * w.at(tap * channels + channel)
            }
            false => 0.0,
        }
    };
    (0..side * side).map(tap).sum()
}

fn depthwise(s: &Setting, dims: [usize; 4], side: usize) -> Result<Ready> {
    let channels = dims[3];
    let (x, w) = (s.noise(1, &dims)?, s.vector(2, &[side * side, channels])?);
    let (map, filter) = (x.tensor.clone(), w.tensor.clone());
    let run = move || ops::depthwise(&map, &filter, None, side);
    let count: usize = dims.iter().product();
    let wanted = move |at: usize| around(&x, &w, dims, side, at);
    Ok(Ready::new(
        run,
        wanted,
        (2 * count * side * side, s.bytes(2 * count)),
    ))
}

fn depthwise_gate(s: &Setting, dims: [usize; 4]) -> Result<Ready> {
    let channels = dims[3];
    let (x, w, bias) = (
        s.noise(1, &dims)?,
        s.vector(2, &[9, channels])?,
        s.vector(3, &[channels])?,
    );
    let parts = (x.tensor.clone(), w.tensor.clone(), bias.tensor.clone());
    let run = move || ops::depthwise_gate(&parts.0, &parts.1, Some(&parts.2));
    let count: usize = dims.iter().product();
    let wanted = move |at: usize| {
        let (pixel, channel) = (at / (channels / 2), at % (channels / 2));
        let value = |c: usize| around(&x, &w, dims, 3, pixel * channels + c) + bias.at(c);
        value(channel) * silu(value(channel + channels / 2))
    };
    Ok(Ready::new(
        run,
        wanted,
        (2 * count * 9, s.bytes(count + count / 2)),
    ))
}
