//! Layers over codes of few bits, and those of few rows.

use half::bf16;

use super::{Listed, Ready, Setting, noise};
use crate::device::Precision;
use crate::error::Result;
use crate::ops::{
    self, Activation, Bits, FewBitsWeight, GroupCodes, LinearWeight, LowBitBranch, LowBitLayer,
    LowBitWeight, Residual, Steps,
};

pub(super) const CASES: &[Listed] = &[
    (
        "rows to 8 bits, branch, gate, residual",
        &["low_bit", "precise"],
        |s| low_bit(s, s.pick([140, 136, 100, 40], [1024, 1152, 1152, 32])),
    ),
    ("8 bits, attention width", &["low_bit", "precise"], |s| {
        low_bit(s, s.pick([9, 130, 192, 32], [1024, 2240, 2240, 32]))
    }),
    ("8 bits, feed-forward", &["low_bit", "precise"], |s| {
        low_bit(s, s.pick([33, 24, 129, 0], [1024, 11200, 2240, 32]))
    }),
    (
        "4-bit weights, 32 rows",
        &["few_rows_tiles", "precise"],
        |s| {
            groups(
                s,
                s.pick([19, 150, 300], [32, 12288, 4096]),
                Bits::Four,
                32,
                false,
            )
        },
    ),
    (
        "4-bit weights, one row",
        &["few_rows_tiles", "precise"],
        |s| {
            groups(
                s,
                s.pick([1, 77, 130], [1, 4096, 12288]),
                Bits::Four,
                32,
                false,
            )
        },
    ),
    (
        "4-bit weights with zeros, 64 rows",
        &["few_rows_tiles", "precise"],
        |s| {
            groups(
                s,
                s.pick([50, 40, 1100], [64, 9216, 2304]),
                Bits::Four,
                64,
                true,
            )
        },
    ),
    (
        "8-bit weights, 32 rows",
        &["few_rows_tiles", "precise"],
        |s| {
            groups(
                s,
                s.pick([30, 131, 2000], [32, 4096, 4096]),
                Bits::Eight,
                32,
                false,
            )
        },
    ),
    (
        "4-bit weights with zeros, widened",
        &["few_rows_tiles", "product", "precise"],
        |s| {
            groups(
                s,
                s.pick([70, 40, 200], [300, 18432, 2304]),
                Bits::Four,
                64,
                true,
            )
        },
    ),
    (
        "8-bit weights, widened",
        &["few_rows_tiles", "product", "precise"],
        |s| {
            groups(
                s,
                s.pick([66, 9, 96], [1280, 12288, 4096]),
                Bits::Eight,
                32,
                false,
            )
        },
    ),
    (
        "bf16 weights, 32 rows",
        &["few_rows_tiles", "precise"],
        |s| few_rows(s, s.pick([17, 70, 1304], [32, 12288, 4096])),
    ),
    (
        "bf16 weights, 64 rows",
        &["few_rows_tiles", "precise"],
        |s| few_rows(s, s.pick([61, 130, 1032], [64, 4096, 12288])),
    ),
    (
        "bf16 weights, a wide head",
        &["few_rows_tiles", "precise"],
        |s| few_rows(s, s.pick([3, 515, 72], [32, 32768, 4096])),
    ),
];

/// A number of −8 to 7, or −127 to 127, from one of −1 to 1.
fn code(value: f32, bits: Bits) -> i8 {
    match bits {
        Bits::Four => (8.0 * value).round().clamp(-8.0, 7.0) as i8,
        Bits::Eight => (127.0 * value).round() as i8,
    }
}

/// Scales that are no zeros.
fn scales(seed: u64, count: usize) -> Vec<f32> {
    noise(seed, count)
        .iter()
        .map(|value| value.abs().max(1.0 / 64.0))
        .collect()
}

fn groups(
    s: &Setting,
    [rows, outputs, inputs]: [usize; 3],
    bits: Bits,
    group: usize,
    has_zeros: bool,
) -> Result<Ready> {
    let count = inputs.div_ceil(group);
    let codes: Vec<i8> = noise(1, outputs * count * group)
        .iter()
        .map(|value| code(*value, bits))
        .collect();
    let scales = scales(2, outputs * count);
    let zeros = has_zeros.then(|| noise(3, outputs * count));
    let weight = FewBitsWeight::new(
        &s.device,
        &GroupCodes {
            outputs,
            inputs,
            group,
            bits,
            codes: &codes,
            scales: &scales,
            zeros: zeros.as_deref(),
        },
    )?;
    let (x, bias) = (s.noise(4, &[rows, inputs])?, s.vector(5, &[outputs])?);
    let (input, addend) = (x.tensor.clone(), bias.tensor.clone());
    let run = move || {
        let steps = Steps {
            bias: Some(&addend),
            ..Steps::default()
        };
        ops::few_bits_linear(&input, &weight, &steps)
    };
    let wanted = move |at: usize| {
        let (row, output) = (at / outputs, at % outputs);
        let sum: f64 = (0..inputs)
            .map(|k| {
                let place = output * count + k / group;
                let code = f64::from(codes[output * count * group + k]);
                let zero = zeros.as_ref().map_or(0.0, |zeros| f64::from(zeros[place]));
                x.at(row * inputs + k) * (code * f64::from(scales[place]) + zero)
            })
            .sum();
        sum + bias.at(output)
    };
    let each = if bits == Bits::Four { 9 } else { 17 };
    let moved = outputs * inputs * each / 16 + s.bytes(rows * (inputs + outputs));
    Ok(Ready::new(
        run,
        wanted,
        (2 * rows * outputs * inputs, moved),
    ))
}

fn few_rows(s: &Setting, [rows, columns, depth]: [usize; 3]) -> Result<Ready> {
    let (x, w) = (s.noise(1, &[rows, depth])?, s.noise(2, &[columns, depth])?);
    let (residual, bias) = (s.vector(3, &[rows, columns])?, s.vector(4, &[columns])?);
    let weight = LinearWeight::new(&w.tensor)?;
    let parts = [&x, &residual, &bias].map(|values| values.tensor.clone());
    let run = move || {
        let steps = Steps {
            bias: Some(&parts[2]),
            activation: Activation::Silu,
            residual: Some(Residual::Rows(&parts[1])),
            ..Steps::default()
        };
        ops::linear(&parts[0], &weight, &steps)
    };
    let wanted = move |at: usize| {
        let (row, column) = (at / columns, at % columns);
        let sum: f64 = (0..depth)
            .map(|k| x.at(row * depth + k) * w.at(column * depth + k))
            .sum();
        super::silu(sum + bias.at(column)) + residual.at(at)
    };
    let moved = s.bytes(columns * depth + rows * depth) + 8 * rows * columns;
    Ok(Ready::new(run, wanted, (2 * rows * columns * depth, moved)))
}

/// A layer in 8 bits: what its codes, and those of the rows, say exactly.
fn low_bit(s: &Setting, [rows, outputs, inputs, rank]: [usize; 4]) -> Result<Ready> {
    // Factors of the branch are bf16 on every device.
    let rank = match s.device.precision() {
        Precision::Half => rank,
        Precision::Single => 0,
    };
    let groups = inputs.div_ceil(64);
    let codes: Vec<i8> = noise(1, outputs * groups * 64)
        .iter()
        .enumerate()
        .map(|(at, value)| match at % (groups * 64) < inputs {
            true => code(*value, Bits::Four),
            false => 0,
        })
        .collect();
    let group_scales = scales(2, outputs * groups);
    let factors = scales(3, inputs);
    let half = |seed: u64, count: usize| -> Vec<f32> {
        noise(seed, count).iter().map(|value| value / 8.0).collect()
    };
    let (down, up) = (half(4, rank * inputs), half(5, outputs * rank));
    let shared = LowBitBranch {
        inputs,
        factors: Some(&factors),
        rank,
        down: &down,
    };
    let layer = LowBitLayer {
        outputs,
        codes: &codes,
        scales: &group_scales,
        up: &up,
    };
    let weight = LowBitWeight::new(&s.device, &shared, &[layer])?;
    let x = s.noise(6, &[rows, inputs])?;
    let (bias, gate) = (s.vector(7, &[outputs])?, s.vector(8, &[1, outputs])?);
    let residual = s.vector(9, &[rows, outputs])?;
    let parts = [&x, &bias, &gate, &residual].map(|values| values.tensor.clone());
    let run = move || {
        let steps = Steps {
            bias: Some(&parts[1]),
            gate: Some(&parts[2]),
            residual: Some(Residual::Rows(&parts[3])),
            ..Steps::default()
        };
        let mut results = ops::low_bit_linear(&parts[0], &weight, 0..1, &[steps])?;
        Ok(results.remove(0))
    };
    // As the layer is re-coded, and rows are as they come.
    let row_codes = |values: &[f32], of_scale: bool| -> (Vec<f64>, f64) {
        let largest = values.iter().fold(0f32, |all, value| all.max(value.abs()));
        let inverse = match of_scale {
            true => 1.0 / (largest / 127.0),
            false => 127.0 / largest,
        };
        let codes = values
            .iter()
            .map(|value| f64::from((value * inverse).round_ties_even()));
        (codes.collect(), f64::from(largest / 127.0))
    };
    let weights: Vec<_> = (0..outputs)
        .map(|output| {
            let values: Vec<f32> = (0..inputs)
                .map(|k| {
                    f32::from(codes[output * groups * 64 + k])
                        * group_scales[output * groups + k / 64]
                })
                .collect();
            row_codes(&values, true)
        })
        .collect();
    let inputs_of: Vec<_> = (0..rows)
        .map(|row| {
            let values: Vec<f32> = (0..inputs)
                .map(|k| x.host[row * inputs + k] * factors[k])
                .collect();
            let low: Vec<f64> = (0..rank)
                .map(|r| {
                    let sum: f64 = (0..inputs)
                        .map(|k| x.at(row * inputs + k) * f64::from(down[r * inputs + k]))
                        .sum();
                    bf16::from_f64(sum).to_f64()
                })
                .collect();
            (row_codes(&values, false), low)
        })
        .collect();
    let wanted = move |at: usize| {
        let (row, output) = (at / outputs, at % outputs);
        let ((codes, scale), low) = &inputs_of[row];
        let (weight, weight_scale) = &weights[output];
        let sum: f64 = codes.iter().zip(weight).map(|(a, b)| a * b).sum();
        let ups = &up[output * rank..][..rank];
        let branch: f64 = low.iter().zip(ups).map(|(a, b)| a * f64::from(*b)).sum();
        let y = sum * scale * weight_scale + branch + bias.at(output);
        y * gate.at(output) + residual.at(at)
    };
    let moved = rows * inputs * 3 + outputs * inputs + 8 * rows * outputs;
    let products = outputs * (inputs + rank) + rank * inputs;
    Ok(Ready::new(run, wanted, (2 * rows * products, moved)))
}
