//! Random values for frozen parameters, made fast by all threads, so that a model of published
//! shapes can be timed without its files.

use crate::weights::Init;
use half::bf16;
use rayon::prelude::*;

/// Values made by one run of the generator; fixed, so that threads do not change the values.
const CHUNK: usize = 1 << 16;

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
        let taps: usize = shape.iter().skip(2).product();
        let inputs = shape.get(1).copied().unwrap_or(1) * taps;
        let outputs = shape.first().copied().unwrap_or(1) * taps;
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

/// `shape.product()` values for the parameter `name`; its name and the seed decide them.
pub(crate) fn values_f32(name: &str, seed: u64, shape: &[usize], init: Init) -> Vec<f32> {
    let mut values = vec![0.0; shape.iter().product()];
    fill(&mut values, name, seed, Range::of(init, shape), |x| x);
    values
}

/// As [`values_f32`], rounded to bf16.
pub(crate) fn values_bf16(name: &str, seed: u64, shape: &[usize], init: Init) -> Vec<bf16> {
    let mut values = vec![bf16::ZERO; shape.iter().product()];
    let range = Range::of(init, shape);
    fill(&mut values, name, seed, range, bf16::from_f32);
    values
}

fn fill<T: Send>(
    values: &mut [T],
    name: &str,
    seed: u64,
    range: Range,
    convert: impl Fn(f32) -> T + Sync,
) {
    let start = hash(name, seed);
    let scale = range.width / 32768.0;
    values
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(index, chunk)| {
            // One step of the generator gives four values of 16 bits.
            let mut counter = mix(start.wrapping_add(index as u64));
            for values in chunk.chunks_mut(4) {
                counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let bits = mix(counter);
                for (place, value) in values.iter_mut().enumerate() {
                    let step = (bits >> (16 * place)) as i16;
                    *value = convert(range.centre + f32::from(step) * scale);
                }
            }
        });
}

/// FNV-1a of the name, started by the seed.
pub(crate) fn hash(name: &str, seed: u64) -> u64 {
    name.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}

/// The output function of SplitMix64.
pub(crate) fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_asked_deviation_and_no_period() {
        let values = values_f32("a.weight", 7, &[512, 512], Init::Normal(0.02));
        let count = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 2e-4, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 2e-4, "{}", square.sqrt());
        assert_ne!(values[..64], values[CHUNK..CHUNK + 64]);
        assert_ne!(
            values[..64],
            values_f32("b.weight", 7, &[512, 512], Init::Normal(0.02))[..64]
        );
    }

    #[test]
    fn half_values_are_the_rounded_ones() {
        let full = values_f32("x", 1, &[3, 5], Init::Ones);
        let half = values_bf16("x", 1, &[3, 5], Init::Ones);
        let rounded: Vec<bf16> = full.iter().map(|x| bf16::from_f32(*x)).collect();
        assert_eq!(half, rounded);
        assert!(full.iter().all(|x| (0.9..=1.1).contains(x)));
        assert!(full.iter().any(|x| *x != full[0]));
    }
}
