//! Norms, values one by one, and copies.

use super::{Listed, Ready, Setting, gelu_tanh, silu};
use crate::error::Result;
use crate::ops::{self, Activation, Binary, Residual, Steps};

pub(super) const CASES: &[Listed] = &[
    ("RMS norm, shift, residual", &["norm"], |s| {
        rms_norm(s, s.pick([19, 264], [65536, 512]))
    }),
    ("RMS norm, odd width", &["norm"], |s| {
        rms_norm(s, s.pick([5, 37], [1024, 1153]))
    }),
    ("layer norm, modulated", &["norm"], layer_norm),
    ("activation", &["pointwise"], activation),
    ("product, sides repeated", &["pointwise"], broadcast_product),
    ("sum of f32 and the rest", &["pointwise"], sum),
    ("value by SiLU of gate", &["pointwise"], |s| {
        gated(s, Activation::Silu)
    }),
    ("GELU of gate by value", &["pointwise"], |s| {
        gated(s, Activation::GeluTanh)
    }),
    ("gate and residual alone", &["pointwise"], steps_alone),
    ("permute", &["copy"], permute),
    ("slices joined", &["copy"], joined),
    ("rows by index", &["copy"], gather),
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

fn layer_norm(s: &Setting) -> Result<Ready> {
    let [batch, tokens, channels] = s.pick([2, 11, 72], [2, 1024, 1152]);
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

fn broadcast_product(s: &Setting) -> Result<Ready> {
    let [batch, rows, channels] = s.pick([3, 6, 20], [2, 1024, 1152]);
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

fn gated(s: &Setting, which: Activation) -> Result<Ready> {
    let [rows, half] = s.pick([9, 21], [300, 9216]);
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

fn joined(s: &Setting) -> Result<Ready> {
    let [rows, first, second] = s.pick([4, 5, 9], [1024, 1152, 2304]);
    let (a, b) = (s.noise(1, &[rows, first])?, s.noise(2, &[rows, second])?);
    let parts = (a.tensor.clone(), b.tensor.clone());
    let width = second - 1 + first;
    let run = move || {
        let shorter = ops::narrow(&parts.1, 1, 1, second - 1)?;
        ops::concatenate(&[&parts.0, &shorter], 1)
    };
    let wanted = move |at: usize| match at % width {
        column if column < first => a.at(at / width * first + column),
        column => b.at(at / width * second + column - first + 1),
    };
    Ok(Ready::new(run, wanted, (0, s.bytes(4 * rows * width))).exactly())
}

fn gather(s: &Setting) -> Result<Ready> {
    let [known, rows, width] = s.pick([17, 6, 20], [256_000, 300, 2304]);
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
