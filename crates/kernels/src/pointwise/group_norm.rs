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

/// Positions whose values are summed at once: few enough to lie in a cache between the two sums over them.
const BLOCK: usize = 1024;

/// What is known of the values of some groups: of a map, or of a part of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Values of each group.
    count: f64,
    /// Mean of each group, and the sum of squared distances from it.
    groups: Vec<(f64, f64)>,
}

impl Moments {
    /// Of `groups` groups of the `channels` of the positions in `x`. The same whatever the number of threads.
    pub fn of(x: &[f32], channels: usize, groups: usize) -> Self {
        let blocks: Vec<Self> = x
            .par_chunks(BLOCK * channels)
            .map(|block| Self::of_block(block, channels, groups))
            .collect();
        blocks.into_iter().fold(Self::default(), Self::with)
    }

    fn of_block(x: &[f32], channels: usize, groups: usize) -> Self {
        let size = channels / groups;
        let count = (x.len() / groups) as f64;
        let grouped = |sums: &[f64]| -> Vec<f64> {
            let groups = sums.chunks_exact(size);
            groups.map(|group| group.iter().sum()).collect()
        };
        let mut sums = vec![0f64; channels];
        for pixel in x.chunks_exact(channels) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(*value);
            }
        }
        let means: Vec<f64> = grouped(&sums).iter().map(|sum| sum / count).collect();
        let by_channel: Vec<f64> = (0..channels).map(|channel| means[channel / size]).collect();
        sums.fill(0.0);
        for pixel in x.chunks_exact(channels) {
            for ((sum, value), mean) in sums.iter_mut().zip(pixel).zip(&by_channel) {
                let distance = f64::from(*value) - mean;
                *sum += distance * distance;
            }
        }
        Self {
            count,
            groups: means.into_iter().zip(grouped(&sums)).collect(),
        }
    }

    /// Of these values and those of another part.
    ///
    /// # Panics
    /// When both have groups, and not the same number of them.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        if self.groups.is_empty() {
            return other;
        }
        if other.groups.is_empty() {
            return self;
        }
        assert_eq!(
            self.groups.len(),
            other.groups.len(),
            "groups of both parts"
        );
        let count = self.count + other.count;
        let pairs = self.groups.iter().zip(&other.groups);
        let groups = pairs.map(|((mean, squares), (other_mean, other_squares))| {
            let distance = other_mean - mean;
            let share = other.count / count;
            (
                mean + distance * share,
                squares + other_squares + distance * distance * self.count * share,
            )
        });
        Self {
            count,
            groups: groups.collect(),
        }
    }

    /// Mean and reciprocal deviation of every group.
    fn statistics(&self, eps: f64) -> Vec<(f64, f64)> {
        let groups = self.groups.iter();
        groups
            .map(|(mean, squares)| (*mean, (squares / self.count + eps).sqrt().recip()))
            .collect()
    }

    /// What every channel is multiplied with and what is added to it: the norm, then weight and bias `[channels]`.
    pub fn factors(&self, eps: f64, weight: &[f32], bias: &[f32]) -> Vec<(f32, f32)> {
        let statistics = self.statistics(eps);
        let size = weight.len() / statistics.len().max(1);
        let channels = weight.iter().zip(bias).enumerate();
        channels
            .map(|(channel, (weight, bias))| {
                let (mean, scale) = statistics[channel / size];
                let factor = scale * f64::from(*weight);
                (factor as f32, (f64::from(*bias) - mean * factor) as f32)
            })
            .collect()
    }
}

/// Every channel of the positions in `x`, multiplied and added to by `factors`.
pub fn scale_shift(x: &[f32], factors: &[(f32, f32)], y: &mut [f32]) {
    let channels = factors.len();
    let pixels = y
        .par_chunks_exact_mut(channels)
        .zip(x.par_chunks_exact(channels))
        .with_min_len(64);
    pixels.for_each(|(y, x)| {
        for ((y, x), (factor, shift)) in y.iter_mut().zip(x).zip(factors) {
            *y = x * factor + shift;
        }
    });
}

/// `(x − mean)/√(variance + eps)·weight + bias`; weight and bias `[channels]`.
pub fn forward(shape: &GroupNormShape, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let map = shape.pixels * shape.channels;
    let maps = y.par_chunks_exact_mut(map).zip(x.par_chunks_exact(map));
    maps.for_each(|(y, x)| {
        let moments = Moments::of(x, shape.channels, shape.groups);
        scale_shift(x, &moments.factors(shape.eps, weight, bias), y);
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
        let statistics = Moments::of(x, shape.channels, shape.groups).statistics(shape.eps);
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

    /// A map, and the same in parts of any length.
    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let (channels, groups) = (6, 3);
        let x = values(channels * 5000, 0.4);
        let whole = Moments::of(&x, channels, groups);
        let parts = [&x[..6], &x[6..6 * 1700], &[], &x[6 * 1700..]];
        let joined = parts.iter().fold(Moments::default(), |all, part| {
            all.with(Moments::of(part, channels, groups))
        });
        assert_eq!(whole.count, joined.count);
        let pairs = whole.groups.iter().zip(&joined.groups);
        for ((mean, squares), (other_mean, other_squares)) in pairs {
            assert!(
                (mean - other_mean).abs() < 1e-12 && (squares / other_squares - 1.0).abs() < 1e-12
            );
        }
        let group: Vec<f64> = x
            .chunks_exact(channels)
            .flat_map(|pixel| pixel[2..4].iter().map(|value| f64::from(*value)))
            .collect();
        let mean = group.iter().sum::<f64>() / group.len() as f64;
        assert!((whole.groups[1].0 - mean).abs() < 1e-12);
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
