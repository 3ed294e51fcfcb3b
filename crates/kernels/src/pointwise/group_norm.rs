//! Group normalisation of channels-last maps (1803.08494); with one group and one pixel a row it is layer
//! normalisation. Statistics are f64, since a group may span millions of values.

use rayon::prelude::*;

/// Sizes of a map `[batch, pixels, channels]` and its groups of consecutive channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormShape {
    /// Maps, each normalised by itself.
    pub batch: usize,
    /// Positions of a map.
    pub pixels: usize,
    /// Width of a position.
    pub channels: usize,
    /// Groups of channels; divides `channels`.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// Mean and reciprocal deviation of every group of one map.
fn statistics(shape: &GroupNormShape, x: &[f32]) -> Vec<(f64, f64)> {
    let size = shape.channels / shape.groups;
    let count = (shape.pixels * size) as f64;
    let mut sums = vec![0f64; shape.groups];
    let mut squares = vec![0f64; shape.groups];
    let each = |sums: &mut [f64], term: &dyn Fn(usize, f32) -> f64| {
        for pixel in x.chunks_exact(shape.channels) {
            for (group, values) in pixel.chunks_exact(size).enumerate() {
                sums[group] += values.iter().map(|value| term(group, *value)).sum::<f64>();
            }
        }
    };
    each(&mut sums, &|_, value| f64::from(value));
    let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
    each(&mut squares, &|group, value| {
        (f64::from(value) - means[group]).powi(2)
    });
    let deviations = squares.iter().map(|sum| (sum / count + shape.eps).sqrt());
    means
        .iter()
        .copied()
        .zip(deviations.map(f64::recip))
        .collect()
}

/// `(x − mean)/√(variance + eps)·weight + bias`; weight and bias `[channels]`.
pub fn forward(shape: &GroupNormShape, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let map = shape.pixels * shape.channels;
    let size = shape.channels / shape.groups;
    let maps = y.par_chunks_exact_mut(map).zip(x.par_chunks_exact(map));
    maps.for_each(|(y, x)| {
        let statistics = statistics(shape, x);
        let factors = weight
            .iter()
            .zip(bias)
            .enumerate()
            .map(|(channel, (w, b))| {
                let (mean, scale) = statistics[channel / size];
                let factor = scale * f64::from(*w);
                (factor as f32, (f64::from(*b) - mean * factor) as f32)
            });
        let factors: Vec<(f32, f32)> = factors.collect();
        let pixels = y
            .par_chunks_exact_mut(shape.channels)
            .zip(x.par_chunks_exact(shape.channels))
            .with_min_len(64);
        pixels.for_each(|(y, x)| {
            for ((y, x), (factor, shift)) in y.iter_mut().zip(x).zip(&factors) {
                *y = x * factor + shift;
            }
        });
    });
}

/// Gradients of x, weight and bias, given that of the result.
pub fn backward(
    shape: &GroupNormShape,
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    dx: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let map = shape.pixels * shape.channels;
    let size = shape.channels / shape.groups;
    let count = (shape.pixels * size) as f64;
    let maps = dx
        .par_chunks_exact_mut(map)
        .zip(x.par_chunks_exact(map))
        .zip(grad.par_chunks_exact(map));
    let parts = maps.map(|((dx, x), grad)| {
        let statistics = statistics(shape, x);
        let normal = |channel: usize, value: f32| {
            let (mean, scale) = statistics[channel / size];
            (f64::from(value) - mean) * scale
        };
        let (mut dw, mut db) = (vec![0f64; shape.channels], vec![0f64; shape.channels]);
        let rows = x
            .chunks_exact(shape.channels)
            .zip(grad.chunks_exact(shape.channels));
        for (x, grad) in rows {
            for (channel, (x, grad)) in x.iter().zip(grad).enumerate() {
                dw[channel] += f64::from(*grad) * normal(channel, *x);
                db[channel] += f64::from(*grad);
            }
        }
        // Means over a group of grad·weight, alone and times the normalised value.
        let mean = |sums: &[f64], group: usize| {
            let channels = group * size..(group + 1) * size;
            let terms = channels.map(|c| sums[c] * f64::from(weight[c]));
            terms.sum::<f64>() / count
        };
        let means: Vec<(f64, f64)> = (0..shape.groups)
            .map(|group| (mean(&db, group), mean(&dw, group)))
            .collect();
        let rows = dx.chunks_exact_mut(shape.channels).zip(
            x.chunks_exact(shape.channels)
                .zip(grad.chunks_exact(shape.channels)),
        );
        for (dx, (x, grad)) in rows {
            for (channel, (dx, (x, grad))) in dx.iter_mut().zip(x.iter().zip(grad)).enumerate() {
                let (plain, slope) = means[channel / size];
                let own = f64::from(*grad) * f64::from(weight[channel]);
                let scale = statistics[channel / size].1;
                *dx = (scale * (own - plain - normal(channel, *x) * slope)) as f32;
            }
        }
        (dw, db)
    });
    let (dw, db): (Vec<_>, Vec<_>) = parts.unzip();
    (sum(shape.channels, &dw), sum(shape.channels, &db))
}

/// The sums of what every map gives, in their order.
fn sum(channels: usize, parts: &[Vec<f64>]) -> Vec<f32> {
    let total = |channel: usize| parts.iter().map(|part| part[channel]).sum::<f64>();
    (0..channels).map(|channel| total(channel) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count)
            .map(|i| (i as f32 * 0.73 + seed).sin() * 2.0 + 0.5)
            .collect()
    }

    #[test]
    fn gradients_agree_with_differences() {
        for (pixels, groups) in [(5, 2), (1, 1)] {
            let shape = GroupNormShape {
                batch: 2,
                pixels,
                channels: 6,
                groups,
                eps: 1e-5,
            };
            let count = shape.batch * pixels * 6;
            let (x, weight, bias) = (values(count, 0.0), values(6, 1.0), values(6, 2.0));
            let grad = values(count, 3.0);
            let loss = |x: &[f32], weight: &[f32], bias: &[f32]| {
                let mut y = vec![0.0; count];
                forward(&shape, x, weight, bias, &mut y);
                let terms = y.iter().zip(&grad).map(|(y, g)| f64::from(y * g));
                terms.sum::<f64>()
            };
            let mut dx = vec![0.0; count];
            let (dw, db) = backward(&shape, &x, &weight, &grad, &mut dx);
            let slope = |which: usize, index: usize| {
                let at = |step: f32| {
                    let mut all = [x.clone(), weight.clone(), bias.clone()];
                    all[which][index] += step;
                    loss(&all[0], &all[1], &all[2])
                };
                ((at(1e-2) - at(-1e-2)) / 2e-2) as f32
            };
            for (which, gradient) in [&dx, &dw, &db].into_iter().enumerate() {
                for (index, gradient) in gradient.iter().enumerate() {
                    let slope = slope(which, index);
                    assert!(
                        (slope - gradient).abs() < 2e-2,
                        "{which} {index}: {slope} {gradient}"
                    );
                }
            }
        }
    }
}
