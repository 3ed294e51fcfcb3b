//! Made-up values for frozen parameters, made fast by all threads, so that a model of published
//! shapes can be timed without its files.

use super::init::{Init, fans};
use crate::checkpoint::checkpoint;
use crate::error::Result;
use crate::random::{SplitMix64, hash, mix};
use crate::tensor::Tensor;
use half::bf16;
use rayon::prelude::*;

/// Values made by one run of the generator; fixed, so that threads do not change the values.
const CHUNK: usize = 1 << 16;
/// Runs between two questions whether to go on.
const RUNS: usize = 256;

/// The centre and half-width of a uniform distribution.
#[derive(Clone, Copy)]
struct Range {
    centre: f32,
    width: f32,
}

impl Range {
    /// The deviation that `init` asks for. Zeros and ones are moved a little, as a trained model's
    /// biases and norms are: work on constants would be another work.
    fn of(init: Init, shape: &[usize]) -> Self {
        let (inputs, outputs) = fans(shape);
        let (centre, width) = match init {
            Init::Zeros | Init::Constant(0.0) => (0.0, 0.02),
            Init::Ones => (1.0, 0.1),
            Init::Constant(value) => (value, 0.1 * value.abs()),
            Init::Normal(deviation) => (0.0, deviation * 3f32.sqrt()),
            Init::FanIn(scale) => (0.0, scale * (3.0 / inputs.max(1) as f32).sqrt()),
            Init::XavierUniform => (0.0, (6.0 / (inputs + outputs).max(1) as f32).sqrt()),
            Init::KaimingUniform => (0.0, (1.0 / inputs.max(1) as f32).sqrt()),
        };
        Self { centre, width }
    }
}

/// How [`crate::WeightsBuilder::random`] keeps matrices that layers take as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits.
    F32,
    /// 16 bits, as most published files.
    Bf16,
}

/// The parameter `path`; its name and the seed decide the values.
pub(super) fn tensor(
    path: &str,
    seed: u64,
    shape: &[usize],
    init: Init,
    storage: Storage,
) -> Result<Tensor> {
    match storage {
        Storage::F32 => Tensor::from_vec(values_f32(path, seed, shape, init)?, shape),
        Storage::Bf16 => Tensor::from_vec(values_bf16(path, seed, shape, init)?, shape),
    }
}

/// `shape.product()` values for the parameter `name`.
fn values_f32(name: &str, seed: u64, shape: &[usize], init: Init) -> Result<Vec<f32>> {
    let count = shape.iter().product();
    filled(count, 0.0, name, seed, Range::of(init, shape), |x| x)
}

/// As [`values_f32`], rounded to bf16.
fn values_bf16(name: &str, seed: u64, shape: &[usize], init: Init) -> Result<Vec<bf16>> {
    let (count, range) = (shape.iter().product(), Range::of(init, shape));
    filled(count, bf16::ZERO, name, seed, range, bf16::from_f32)
}

fn filled<T: Send + Clone>(
    count: usize,
    zero: T,
    name: &str,
    seed: u64,
    range: Range,
    convert: impl Fn(f32) -> T + Sync,
) -> Result<Vec<T>> {
    let start = hash(name, seed);
    let scale = range.width / 32768.0;
    let run = |index: usize, chunk: &mut [T]| {
        // One step of the generator gives four values of 16 bits.
        let mut random = SplitMix64::new(mix(start.wrapping_add(index as u64)));
        for values in chunk.chunks_mut(4) {
            let bits = random.next_u64();
            for (place, value) in values.iter_mut().enumerate() {
                let step = (bits >> (16 * place)) as i16;
                *value = convert(range.centre + f32::from(step) * scale);
            }
        }
    };
    // The memory of a large table is touched part by part, as that takes as long as filling it.
    let mut values = Vec::with_capacity(count);
    for part in 0..count.div_ceil(RUNS * CHUNK) {
        checkpoint()?;
        let begin = part * RUNS * CHUNK;
        values.resize((begin + RUNS * CHUNK).min(count), zero.clone());
        values[begin..]
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(index, chunk)| run(part * RUNS + index, chunk));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_asked_deviation_and_no_period() {
        let values = values_f32("a.weight", 7, &[512, 512], Init::Normal(0.02)).unwrap();
        let count = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 2e-4, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 2e-4, "{}", square.sqrt());
        assert_ne!(values[..64], values[CHUNK..CHUNK + 64]);
        assert_ne!(
            values[..64],
            values_f32("b.weight", 7, &[512, 512], Init::Normal(0.02)).unwrap()[..64]
        );
    }

    #[test]
    fn a_large_table_stops_on_the_way() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Once(AtomicUsize);
        impl crate::Checkpoint for Once {
            fn go_on(&self) -> bool {
                self.0.fetch_add(1, Ordering::Relaxed) == 0
            }
        }
        let asked = std::sync::Arc::new(Once(AtomicUsize::new(0)));
        let shape = [2, RUNS * CHUNK];
        let stopped = crate::with_checkpoint(asked.clone(), || {
            values_bf16("table", 1, &shape, Init::Normal(0.02))
        });
        assert!(matches!(stopped, Err(crate::Error::Stopped)));
        assert_eq!(asked.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn half_values_are_the_rounded_ones() {
        let full = values_f32("x", 1, &[3, 5], Init::Ones).unwrap();
        let half = values_bf16("x", 1, &[3, 5], Init::Ones).unwrap();
        let rounded: Vec<bf16> = full.iter().map(|x| bf16::from_f32(*x)).collect();
        assert_eq!(half, rounded);
        assert!(full.iter().all(|x| (0.9..=1.1).contains(x)));
        assert!(full.iter().any(|x| *x != full[0]));
    }
}
