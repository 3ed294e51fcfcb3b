//! AWQ (arXiv 2306.00978): 4-bit weights for layers whose inputs are not rounded.
//!
//! Inputs that are large on average matter most. Their columns of the weight are made larger before
//! rounding, and whatever makes the inputs (a norm, the layer before) smaller by the same factors:
//!
//! ```text
//! s = mean|x|^α, scaled to max(s)·min(s) = 1;   α of the smallest error of (x/s)·Q(W·diag(s))ᵀ
//! each group's range shrinks to what gives the smallest error of its own products
//! ```

use brisk_kernels::gemm::{Threads, View, multiply};
use rayon::prelude::*;

use crate::HalfType;
use crate::error::{Error, Result};
use crate::integer::GROUP;
use crate::method::{Calibration, LayerError};
use crate::w4a16::Awq;

/// Largest code.
const MOST: f32 = 15.0;

/// How layers are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AwqSettings {
    /// Exponents that are tried: 0, 1/grids, …
    pub grids: usize,
    /// Ranges that are tried for a group: 1, 1 − 1/ranges, …
    pub ranges: usize,
    /// How far a range may shrink.
    pub shrink: f32,
    /// Type of scales and zeros.
    pub half: HalfType,
}

impl Default for AwqSettings {
    /// Those of the paper's code: 20 exponents, ranges down to a quarter.
    fn default() -> Self {
        Self {
            grids: 20,
            ranges: 20,
            shrink: 0.8,
            half: HalfType::Bf16,
        }
    }
}

/// Layers that share their input, quantized.
#[derive(Clone, Debug)]
pub struct AwqLayers {
    /// One for each weight, for inputs divided by `factors`.
    pub layers: Vec<Awq>,
    /// What the inputs are to be divided by.
    pub factors: Vec<f32>,
    /// Exponent of the factors.
    pub alpha: f32,
    /// Of all outputs together, on the calibration inputs.
    pub error: LayerError,
}

/// Mean size of each input.
pub fn column_means(inputs: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in inputs.chunks_exact(width) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(value.abs());
        }
    }
    let rows = (inputs.len() / width).max(1) as f64;
    sums.iter().map(|sum| (sum / rows) as f32).collect()
}

/// Quantizes the weights, `[outputs, width]` each, of layers that share their input. `means` says how
/// large each input is ([`column_means`]); inputs that must share a factor have equal means.
///
/// # Errors
/// Sizes that cannot be packed (outputs in fours, inputs in groups of 64) or do not fit each other,
/// values that are not finite, no calibration rows.
pub fn quantize_awq(
    weights: &[&[f32]],
    means: &[f32],
    calibration: Calibration,
    settings: &AwqSettings,
) -> Result<AwqLayers> {
    check(weights, means, calibration, settings)?;
    let Calibration { inputs, width } = calibration;
    let mut best = (f64::INFINITY, 0.0, vec![1.0; width]);
    for step in 0..settings.grids {
        let alpha = step as f32 / settings.grids as f32;
        let factors = factors(means, alpha);
        let error: f64 = weights
            .iter()
            .map(|weight| {
                let scaled = scale_columns(weight, &factors);
                let ranges = vec![1.0; weight.len() / GROUP];
                let rounded = round(&scaled, width, &ranges, settings.half);
                difference(weight, &rounded.weight(), &factors, inputs, width)
            })
            .sum();
        if error < best.0 {
            best = (error, alpha, factors);
        }
    }
    let (_, alpha, factors) = best;
    let mut scaled_inputs = inputs.to_vec();
    for row in scaled_inputs.chunks_exact_mut(width) {
        row.iter_mut().zip(&factors).for_each(|(x, s)| *x /= s);
    }
    let products = group_products(&scaled_inputs, width);
    let mut error = LayerError::default();
    let layers = weights
        .iter()
        .map(|weight| {
            let scaled = scale_columns(weight, &factors);
            let ranges = best_ranges(&scaled, width, &products, settings);
            let layer = round(&scaled, width, &ranges, settings.half);
            error.squared += difference(weight, &layer.weight(), &factors, inputs, width);
            error.reference += size(weight, inputs, width);
            layer
        })
        .collect();
    Ok(AwqLayers {
        layers,
        factors,
        alpha,
        error,
    })
}

fn check(
    weights: &[&[f32]],
    means: &[f32],
    calibration: Calibration,
    settings: &AwqSettings,
) -> Result<()> {
    let invalid = |problem: String| Err(Error::Invalid(problem));
    let Calibration { inputs, width } = calibration;
    if width == 0 || !width.is_multiple_of(GROUP) || means.len() != width {
        return invalid(format!(
            "{width} inputs and {} means, expected a multiple of {GROUP}, and as many",
            means.len()
        ));
    }
    for weight in weights {
        let rows = weight.len() / width;
        if rows == 0 || !rows.is_multiple_of(4) || rows * width != weight.len() {
            return invalid(format!(
                "a weight of {} values, expected rows of {width} in fours",
                weight.len()
            ));
        }
    }
    if inputs.is_empty() || !inputs.len().is_multiple_of(width) {
        return invalid(format!(
            "{} calibration values, expected at least one row of {width}",
            inputs.len()
        ));
    }
    let values = weights.iter().flat_map(|weight| weight.iter());
    if !values.chain(inputs).chain(means).all(|v| v.is_finite()) {
        return invalid("weights or calibration inputs hold NaN or infinity".to_owned());
    }
    if settings.grids == 0 || settings.ranges == 0 || !(0.0..1.0).contains(&settings.shrink) {
        return invalid(format!(
            "{} exponents, {} ranges, shrinking by {}, expected at least 1, 1, and 0 to below 1",
            settings.grids, settings.ranges, settings.shrink
        ));
    }
    Ok(())
}

fn factors(means: &[f32], alpha: f32) -> Vec<f32> {
    let raw: Vec<f32> = means.iter().map(|m| m.powf(alpha).max(1e-4)).collect();
    let (low, high) = raw.iter().fold((f32::INFINITY, 0.0f32), |(low, high), s| {
        (low.min(*s), high.max(*s))
    });
    let middle = (low * high).sqrt();
    raw.iter().map(|s| s / middle).collect()
}

fn scale_columns(weight: &[f32], factors: &[f32]) -> Vec<f32> {
    let rows = weight.chunks_exact(factors.len());
    rows.flat_map(|row| row.iter().zip(factors).map(|(w, s)| w * s))
        .collect()
}

/// Scale and zero of a group whose range is shrunk to `range` of its own.
fn grid(values: &[f32], range: f32, half: HalfType) -> (f32, f32) {
    // The range always holds zero.
    let (low, high) = values.iter().fold((0.0f32, 0.0f32), |(low, high), v| {
        (low.min(*v), high.max(*v))
    });
    let scale = half.round((high - low) * range / MOST);
    if scale == 0.0 {
        return (1.0, 0.0);
    }
    let zero = (-low * range / scale).round_ties_even().clamp(0.0, MOST);
    (scale, zero)
}

fn code(value: f32, scale: f32, zero: f32) -> f32 {
    ((value / scale).round_ties_even() + zero).clamp(0.0, MOST)
}

/// Rounds a weight with the range of each of its groups.
fn round(weight: &[f32], width: usize, ranges: &[f32], half: HalfType) -> Awq {
    let outputs = weight.len() / width;
    let groups = width / GROUP;
    let mut codes = vec![0u8; weight.len()];
    let mut scales = vec![0.0; groups * outputs];
    let mut zeros = scales.clone();
    let each = codes
        .chunks_exact_mut(GROUP)
        .zip(weight.chunks_exact(GROUP));
    for (index, ((codes, values), range)) in each.zip(ranges).enumerate() {
        let (scale, zero) = grid(values, *range, half);
        for (to, value) in codes.iter_mut().zip(values) {
            *to = code(*value, scale, zero) as u8;
        }
        let place = index % groups * outputs + index / groups;
        scales[place] = scale;
        zeros[place] = half.round(-zero * scale);
    }
    Awq {
        outputs,
        inputs: width,
        half,
        codes,
        scales,
        zeros,
        bias: None,
    }
}

/// Sum of squares of `inputs·(rounded/factors − weight)ᵀ`.
fn difference(
    weight: &[f32],
    rounded: &[f32],
    factors: &[f32],
    inputs: &[f32],
    width: usize,
) -> f64 {
    let rows = weight.chunks_exact(width).zip(rounded.chunks_exact(width));
    let off: Vec<f32> = rows
        .flat_map(|(w, q)| w.iter().zip(q).zip(factors).map(|((w, q), s)| q / s - w))
        .collect();
    size(&off, inputs, width)
}

/// Sum of squares of `inputs·weightᵀ`.
fn size(weight: &[f32], inputs: &[f32], width: usize) -> f64 {
    let (rows, outputs) = (inputs.len() / width, weight.len() / width);
    let mut y = vec![0.0; rows * outputs];
    let x = View::new(inputs, rows, width);
    let w = View::new(weight, outputs, width).transposed();
    multiply(&mut y, outputs, x, w, 1.0, false, Threads::Pool);
    y.iter().map(|y| f64::from(*y).powi(2)).sum()
}

/// `xᵀx` of each group of inputs, `[GROUP, GROUP]` one after another.
fn group_products(inputs: &[f32], width: usize) -> Vec<f32> {
    let rows = inputs.len() / width;
    let mut products = vec![0.0; width * GROUP];
    products
        .par_chunks_exact_mut(GROUP * GROUP)
        .enumerate()
        .for_each(|(group, product)| {
            let columns: Vec<f32> = inputs
                .chunks_exact(width)
                .flat_map(|row| &row[group * GROUP..(group + 1) * GROUP])
                .copied()
                .collect();
            let x = View::new(&columns, rows, GROUP);
            multiply(product, GROUP, x.transposed(), x, 1.0, false, Threads::One);
        });
    products
}

/// For each group of each output the range whose rounding changes its own products least.
fn best_ranges(weight: &[f32], width: usize, products: &[f32], settings: &AwqSettings) -> Vec<f32> {
    let groups = width / GROUP;
    let outputs = weight.len() / width;
    let steps = (settings.shrink * settings.ranges as f32) as usize;
    // By group: all outputs of one group share its products.
    let by_group: Vec<Vec<f32>> = (0..groups)
        .into_par_iter()
        .map(|group| {
            let product = &products[group * GROUP * GROUP..][..GROUP * GROUP];
            let product = View::new(product, GROUP, GROUP);
            let mut off = vec![0.0; outputs * GROUP];
            let mut weighed = vec![0.0; outputs * GROUP];
            let mut best = vec![(f32::INFINITY, 1.0); outputs];
            for step in 0..steps.max(1) {
                let range = 1.0 - step as f32 / settings.ranges as f32;
                for (n, off) in off.chunks_exact_mut(GROUP).enumerate() {
                    let values = &weight[n * width + group * GROUP..][..GROUP];
                    let (scale, zero) = grid(values, range, settings.half);
                    let held = settings.half.round(-zero * scale);
                    for (off, value) in off.iter_mut().zip(values) {
                        *off = code(*value, scale, zero) * scale + held - value;
                    }
                }
                let errors = View::new(&off, outputs, GROUP);
                multiply(
                    &mut weighed,
                    GROUP,
                    errors,
                    product,
                    1.0,
                    false,
                    Threads::One,
                );
                let rows = off.chunks_exact(GROUP).zip(weighed.chunks_exact(GROUP));
                for ((off, weighed), best) in rows.zip(&mut best) {
                    let error: f32 = off.iter().zip(weighed).map(|(a, b)| a * b).sum();
                    if error < best.0 {
                        *best = (error, range);
                    }
                }
            }
            best.into_iter().map(|(_, range)| range).collect()
        })
        .collect();
    (0..outputs * groups)
        .map(|index| by_group[index % groups][index / groups])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_kernels::reference::noise;

    /// A few inputs are much larger than the others, as in a language model.
    fn layer() -> (Vec<f32>, Vec<f32>) {
        let weight: Vec<f32> = noise(64 * 128, 1).iter().map(|v| v * v * v).collect();
        let mut inputs = noise(96 * 128, 2);
        for row in inputs.chunks_exact_mut(128) {
            for at in [3, 40, 90, 121] {
                row[at] *= 30.0;
            }
        }
        (weight, inputs)
    }

    #[test]
    fn large_inputs_are_kept_better_than_by_rounding() {
        let (weight, inputs) = layer();
        let calibration = Calibration {
            inputs: &inputs,
            width: 128,
        };
        let means = column_means(&inputs, 128);
        let plain = AwqSettings {
            grids: 1,
            shrink: 0.0,
            ..AwqSettings::default()
        };
        let settings = [
            plain,
            AwqSettings { grids: 20, ..plain },
            AwqSettings::default(),
        ];
        let errors = settings.map(|settings| {
            let found = quantize_awq(&[&weight], &means, calibration, &settings).unwrap();
            found.error.relative()
        });
        assert!(errors[0] < 0.2, "{errors:?}");
        assert!(errors[1] < 0.6 * errors[0], "{errors:?}");
        assert!(errors[2] < errors[1], "{errors:?}");
    }

    #[test]
    fn the_layer_and_its_factors_stand_for_the_weight() {
        let (weight, inputs) = layer();
        let calibration = Calibration {
            inputs: &inputs,
            width: 128,
        };
        let means = column_means(&inputs, 128);
        let settings = AwqSettings::default();
        let halves = [&weight[..32 * 128], &weight[32 * 128..]];
        let found = quantize_awq(&halves, &means, calibration, &settings).unwrap();
        assert_eq!(found.layers.len(), 2);
        let squared: f64 = found
            .layers
            .iter()
            .zip(halves)
            .map(|(layer, w)| difference(w, &layer.weight(), &found.factors, &inputs, 128))
            .sum();
        assert!((squared / found.error.squared - 1.0).abs() < 1e-9);
        let product = found.factors.iter().fold(0.0f32, |m, s| m.max(*s))
            * found.factors.iter().fold(f32::INFINITY, |m, s| m.min(*s));
        assert!((product - 1.0).abs() < 1e-4, "{product}");
    }

    #[test]
    fn what_cannot_be_packed_is_refused() {
        let settings = AwqSettings::default();
        let (weight, inputs) = layer();
        let means = column_means(&inputs, 128);
        let refused = |weight: &[f32], means: &[f32], inputs: &[f32], expected: &str| {
            let calibration = Calibration { inputs, width: 128 };
            let error = quantize_awq(&[weight], means, calibration, &settings);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(&weight[..3 * 128], &means, &inputs, "in fours");
        refused(&weight, &means[..64], &inputs, "64 means");
        refused(&weight, &means, &[], "0 calibration values");
        let mut broken = weight.clone();
        broken[5] = f32::NAN;
        refused(&broken, &means, &inputs, "NaN");
    }
}
