//! Norms, values one by one, and copies.

use super::{Listed, Ready, Setting, gelu_tanh, silu};
use crate::error::Result;
use crate::ops::{self, Activation, Binary, Residual, Steps};
use crate::tensor::Element;

pub(super) const CASES: &[Listed] = &[
    ("RMS norm, shift, residual", &["norm"], |s| {
        rms_norm(s, s.pick([19, 264], [65536, 512]))
    }),
    ("RMS norm of a map", &["norm"], |s| {
        rms_norm(s, s.pick([70, 40], [1024 * 1024, 128]))
    }),
    ("RMS norm, few long rows", &["norm"], |s| {
        rms_norm(s, s.pick([3, 2304], [300, 2304]))
    }),
    ("RMS norm beyond registers", &["norm"], |s| {
        rms_norm(s, s.pick([2, 8203], [16, 16384]))
    }),
    ("RMS norm, odd width", &["norm"], |s| {
        rms_norm(s, s.pick([5, 37], [1024, 1153]))
    }),
    ("RMS norm of two", &["norm"], |s| {
        rms_norm_pair(s, s.pick([11, 264], [1024, 1152]))
    }),
    ("layer norm, modulated", &["norm"], |s| {
        layer_norm(s, s.pick([2, 11, 72], [2, 1024, 1152]))
    }),
    ("layer norm, modulated, long rows", &["norm"], |s| {
        layer_norm(s, s.pick([2, 3, 1153], [1, 1024, 2240]))
    }),
    ("layer norm beyond registers", &["norm"], |s| {
        layer_norm(s, s.pick([1, 2, 8200], [1, 16, 16384]))
    }),
    ("activation", &["pointwise"], activation),
    ("product, sides repeated", &["pointwise"], |s| {
        broadcast_product(s, s.pick([3, 6, 24], [2, 1024, 1152]))
    }),
    ("product, sides repeated, odd", &["pointwise"], |s| {
        broadcast_product(s, s.pick([3, 6, 20], [2, 1024, 1155]))
    }),
    ("quotient, a value a row", &["pointwise"], quotient),
    ("sum of f32 and the rest", &["pointwise"], sum),
    ("value by SiLU of gate", &["pointwise"], |s| {
        gated(s, s.pick([9, 21], [300, 9216]), Activation::Silu)
    }),
    ("GELU of gate by value", &["pointwise"], |s| {
        gated(s, s.pick([9, 24], [300, 9216]), Activation::GeluTanh)
    }),
    ("SiLU of gate by value, apart", &["pointwise"], |s| {
        gated_pair(s, Activation::Silu)
    }),
    ("GELU of gate by value, apart", &["pointwise"], |s| {
        gated_pair(s, Activation::GeluTanh)
    }),
    ("gate and residual alone", &["pointwise"], steps_alone),
    ("permute", &["copy"], permute),
    ("slices joined", &["copy"], |s| {
        joined(s, s.pick([4, 5, 9], [1024, 1152, 2304]), 1)
    }),
    ("slices joined in eights", &["copy"], |s| {
        joined(s, s.pick([4, 16, 40], [1024, 1152, 2304]), 8)
    }),
    ("rows by index", &["copy"], |s| {
        gather(s, s.pick([17, 6, 24], [256_000, 300, 2304]))
    }),
    ("rows by index, odd width", &["copy"], |s| {
        gather(s, s.pick([17, 6, 20], [256_000, 300, 2305]))
    }),
    ("means of neighbours", &["copy"], group_mean),
];

fn rms_norm(s: &Setting, [rows, channels]: [usize; 2]) -> Result<Ready> {
    let (x, residual) = (
        s.noise(1, &[rows, channels])?,
        s.noise(2, &[rows, channels])?,
    );
    let (weight, shift) = (s.vector(3, &[channels])?, s.vector(4, &[channels])?);
    let parts = [&x, &residual, &weight, &shift].map(|values| values.tensor.clone());
    let run = move || {
        let [x, residual, weight, shift] = &parts;
        let steps = Steps {
            residual: Some(Residual::Rows(residual)),
            ..Steps::default()
        };
        ops::rms_norm(x, weight, Some(shift), 1e-5, &steps)
    };
    let wanted = move |at: usize| {
        let (row, channel) = (at / channels, at % channels);
        let squares: f64 = (0..channels)
            .map(|c| x.at(row * channels + c).powi(2))
            .sum();
        let factor = 1.0 / (squares / channels as f64 + 1e-5).sqrt();
        x.at(at) * factor * weight.at(channel) + shift.at(channel) + residual.at(at)
    };
    Ok(Ready::new(
        run,
        wanted,
        (4 * rows * channels, s.bytes(3 * rows * channels)),
    ))
}

/// Both, one after the other.
fn rms_norm_pair(s: &Setting, [rows, channels]: [usize; 2]) -> Result<Ready> {
    let x = [
        s.noise(1, &[rows, channels])?,
        s.noise(2, &[rows, channels])?,
    ];
    let weight = [s.vector(3, &[channels])?, s.vector(4, &[channels])?];
    let (tensors, weights) = (
        x.clone().map(|x| x.tensor),
        weight.clone().map(|weight| weight.tensor),
    );
    let run = move || {
        let [a, b] = [0, 1].map(|at| (&tensors[at], &weights[at]));
        let [first, second] = ops::rms_norm_pair(a, b, 1e-5)?;
        ops::concatenate(&[&first, &second], 0)
    };
    let wanted = move |at: usize| {
        let (which, at) = (at / (rows * channels), at % (rows * channels));
        let first = at / channels * channels;
        let sum: f64 = (0..channels).map(|c| x[which].at(first + c).powi(2)).sum();
        x[which].at(at) / (sum / channels as f64 + 1e-5).sqrt() * weight[which].at(at % channels)
    };
    let moved = s.bytes(4 * rows * channels);
    Ok(Ready::new(run, wanted, (6 * rows * channels, moved)))
}

fn layer_norm(s: &Setting, [batch, tokens, channels]: [usize; 3]) -> Result<Ready> {
    // The residual stream is f32.
    let x = s.vector(1, &[batch, tokens, channels])?;
    let (shift, scale) = (
        s.vector(2, &[batch, channels])?,
        s.vector(3, &[batch, channels])?,
    );
    let parts = [&x, &shift, &scale].map(|values| values.tensor.clone());
    let run = move || ops::layer_norm_modulate(&parts[0], &parts[1], &parts[2], 1e-6);
    let wanted = move |at: usize| {
        let (row, channel) = (at / channels, at % channels);
        let values = || (0..channels).map(|c| x.at(row * channels + c));
        let mean = values().sum::<f64>() / channels as f64;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
        let vector = row / tokens * channels + channel;
        (x.at(at) - mean) / (variance + 1e-6).sqrt() * (1.0 + scale.at(vector)) + shift.at(vector)
    };
    let count = batch * tokens * channels;
    Ok(Ready::new(
        run,
        wanted,
        (6 * count, 4 * count + s.bytes(count)),
    ))
}

fn activation(s: &Setting) -> Result<Ready> {
    let count = s.pick(1003, 1024 * 1024 * 128);
    let x = s.noise(1, &[count])?;
    let tensor = x.tensor.clone();
    let run = move || ops::activation(&tensor, Activation::Silu);
    Ok(Ready::new(
        run,
        move |at| silu(x.at(at)),
        (5 * count, s.bytes(2 * count)),
    ))
}

fn quotient(s: &Setting) -> Result<Ready> {
    let [rows, channels] = s.pick([7, 24], [4096, 1152]);
    let a = s.noise(1, &[rows, channels])?;
    let b: Vec<f32> = super::noise(2, rows).iter().map(|v| v + 2.0).collect();
    let b = s.filled(&[rows, 1], Element::F32, b)?;
    let parts = (a.tensor.clone(), b.tensor.clone());
    let run = move || ops::binary(Binary::Divide, &parts.0, &parts.1);
    let count = rows * channels;
    let wanted = move |at: usize| a.at(at) / b.at(at / channels);
    Ok(Ready::new(run, wanted, (count, 4 * count + s.bytes(count))))
}

fn broadcast_product(s: &Setting, [batch, rows, channels]: [usize; 3]) -> Result<Ready> {
    let (a, b) = (
        s.noise(1, &[batch, 1, channels])?,
        s.vector(2, &[rows, channels])?,
    );
    let parts = (a.tensor.clone(), b.tensor.clone());
    let run = move || ops::binary(Binary::Multiply, &parts.0, &parts.1);
    let wanted = move |at: usize| {
        let channel = at % channels;
        a.at(at / channels / rows * channels + channel)
            * b.at(at / channels % rows * channels + channel)
    };
    let count = batch * rows * channels;
    Ok(Ready::new(run, wanted, (count, 4 * count)))
}

fn sum(s: &Setting) -> Result<Ready> {
    let dims = s.pick([3, 11, 21], [1, 300, 2304]);
    let (a, b) = (s.vector(1, &dims)?, s.noise(2, &dims)?);
    let parts = (a.tensor.clone(), b.tensor.clone());
    // One way and the other: the sum is f32 either way.
    let run = move || {
        let once = ops::binary(Binary::Add, &parts.0, &parts.1)?;
        ops::binary(Binary::Add, &parts.1, &once)
    };
    let count: usize = dims.iter().product();
    let wanted = move |at: usize| a.at(at) + 2.0 * b.at(at);
    Ok(Ready::new(
        run,
        wanted,
        (2 * count, 16 * count + 2 * s.bytes(count)),
    ))
}

fn gated_pair(s: &Setting, which: Activation) -> Result<Ready> {
    let dims = s.pick([3, 32], [300, 9216]);
    let (gates, values) = (s.noise(1, &dims)?, s.noise(2, &dims)?);
    let parts = (gates.tensor.clone(), values.tensor.clone());
    let run = move || ops::gated_pair(&parts.0, &parts.1, which);
    let count: usize = dims.iter().product();
    let wanted = move |at: usize| {
        let gate = gates.at(at);
        let gate = if which == Activation::Silu {
            silu(gate)
        } else {
            gelu_tanh(gate)
        };
        gate * values.at(at)
    };
    Ok(Ready::new(run, wanted, (6 * count, s.bytes(3 * count))))
}

fn gated(s: &Setting, [rows, half]: [usize; 2], which: Activation) -> Result<Ready> {
    let x = s.noise(1, &[rows, 2 * half])?;
    let tensor = x.tensor.clone();
    let run = move || ops::gated(&tensor, which);
    let wanted = move |at: usize| {
        let first = at / half * 2 * half + at % half;
        let (a, b) = (x.at(first), x.at(first + half));
        if which == Activation::Silu {
            a * silu(b)
        } else {
            gelu_tanh(a) * b
        }
    };
    Ok(Ready::new(
        run,
        wanted,
        (6 * rows * half, s.bytes(3 * rows * half)),
    ))
}

fn steps_alone(s: &Setting) -> Result<Ready> {
    let [batch, rows, channels] = s.pick([2, 5, 13], [2, 1024, 1152]);
    let dims = [batch, rows, channels];
    let (x, gate, residual) = (
        s.noise(1, &dims)?,
        s.vector(2, &[batch, channels])?,
        s.vector(3, &dims)?,
    );
    let parts = [&x, &gate, &residual].map(|values| values.tensor.clone());
    let run = move || {
        let steps = Steps {
            gate: Some(&parts[1]),
            residual: Some(Residual::Rows(&parts[2])),
            ..Steps::default()
        };
        ops::steps(&parts[0], &steps)
    };
    let wanted = move |at: usize| {
        x.at(at) * gate.at(at / channels / rows * channels + at % channels) + residual.at(at)
    };
    let count = batch * rows * channels;
    Ok(Ready::new(
        run,
        wanted,
        (2 * count, 8 * count + s.bytes(count)),
    ))
}

fn permute(s: &Setting) -> Result<Ready> {
    let [batch, height, width, channels] = s.pick([2, 3, 5, 7], [1, 1024, 1024, 3]);
    let x = s.noise(1, &[batch, height, width, channels])?;
    let tensor = x.tensor.clone();
    let run = move || ops::permute(&tensor, &[0, 3, 1, 2]);
    let wanted = move |at: usize| {
        let (column, row) = (at % width, at / width % height);
        let (channel, picture) = (
            at / width / height % channels,
            at / width / height / channels,
        );
        x.at(((picture * height + row) * width + column) * channels + channel)
    };
    let count = batch * height * width * channels;
    Ok(Ready::new(run, wanted, (0, s.bytes(2 * count))).exactly())
}

/// A part and what is left of another without its first `skipped` columns.
fn joined(s: &Setting, [rows, first, second]: [usize; 3], skipped: usize) -> Result<Ready> {
    let (a, b) = (s.noise(1, &[rows, first])?, s.noise(2, &[rows, second])?);
    let parts = (a.tensor.clone(), b.tensor.clone());
    let width = second - skipped + first;
    let run = move || {
        let shorter = ops::narrow(&parts.1, 1, skipped, second - skipped)?;
        ops::concatenate(&[&parts.0, &shorter], 1)
    };
    let wanted = move |at: usize| match at % width {
        column if column < first => a.at(at / width * first + column),
        column => b.at(at / width * second + column - first + skipped),
    };
    Ok(Ready::new(run, wanted, (0, s.bytes(4 * rows * width))).exactly())
}

fn gather(s: &Setting, [known, rows, width]: [usize; 3]) -> Result<Ready> {
    let x = s.noise(1, &[known, width])?;
    let indices: Vec<u32> = (0..rows).map(|row| (row * 7919 % known) as u32).collect();
    let chosen = s.device.upload_u32(&indices, &[rows])?;
    let tensor = x.tensor.clone();
    let run = move || ops::gather(&tensor, &chosen);
    let wanted = move |at: usize| x.at(indices[at / width] as usize * width + at % width);
    Ok(Ready::new(run, wanted, (0, s.bytes(2 * rows * width))).exactly())
}

fn group_mean(s: &Setting) -> Result<Ready> {
    let [rows, channels, group] = s.pick([6, 5, 4], [4096, 32, 32]);
    let x = s.noise(1, &[rows, channels * group])?;
    let tensor = x.tensor.clone();
    let run = move || ops::group_mean(&tensor, group);
    let wanted =
        move |at: usize| (0..group).map(|j| x.at(at * group + j)).sum::<f64>() / group as f64;
    let count = rows * channels;
    Ok(Ready::new(
        run,
        wanted,
        (count * group, s.bytes(count * (group + 1))),
    ))
}
