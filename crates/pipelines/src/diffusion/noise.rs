//! Noise that `torch.randn` draws on a CPU for the same seed.
//!
//! The generator is the 32-bit Mersenne Twister. Sixteen values and more come from a block form of
//! Box–Muller in f32, fewer from a scalar f64 form that keeps its second sample for the next call;
//! both consume the random stream exactly as torch does, so any sequence of draws stays in step.

const STATE: usize = 624;
const SHIFT: usize = 397;

/// The 32-bit Mersenne Twister (MT19937).
#[derive(Clone)]
struct MersenneTwister {
    state: [u32; STATE],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [0u32; STATE];
        state[0] = seed;
        for index in 1..STATE {
            let previous = state[index - 1];
            state[index] = 1_812_433_253u32
                .wrapping_mul(previous ^ (previous >> 30))
                .wrapping_add(index as u32);
        }
        Self { state, next: STATE }
    }

    fn refill(&mut self) {
        for index in 0..STATE {
            let mixed =
                (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % STATE] & 0x7fff_ffff);
            let mut value = self.state[(index + SHIFT) % STATE] ^ (mixed >> 1);
            if mixed & 1 == 1 {
                value ^= 0x9908_b0df;
            }
            self.state[index] = value;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }
}

/// A normal generator with the stream of `torch.Generator("cpu").manual_seed(seed)`.
///
/// ```
/// let mut generator = brisk_pipelines::diffusion::noise::TorchGenerator::new(0);
/// let values = generator.randn(5);
/// assert!((values[0] - 1.540_996_1).abs() < 1e-6);
/// ```
#[derive(Clone)]
pub struct TorchGenerator {
    engine: MersenneTwister,
    /// The sine half of the last scalar Box–Muller pair, in f64.
    cached: Option<f64>,
}

impl TorchGenerator {
    /// Seeds the generator. As in torch, only the low 32 bits of the seed matter.
    pub fn new(seed: u64) -> Self {
        Self {
            engine: MersenneTwister::new((seed & 0xffff_ffff) as u32),
            cached: None,
        }
    }

    /// Draws `count` standard normal values in f32, as one `torch.randn` call of that many elements.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < 16 {
            return (0..count).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform_f32()).collect();
        for block in values.chunks_exact_mut(16) {
            box_muller_block(block);
        }
        if !count.is_multiple_of(16) {
            // The last sixteen are drawn anew, overlapping the last whole block.
            let tail = &mut values[count - 16..];
            for value in tail.iter_mut() {
                *value = self.uniform_f32();
            }
            box_muller_block(tail);
        }
        values
    }

    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let low = u64::from(self.engine.next_u32());
        let bits = ((high << 32) | low) & ((1u64 << 53) - 1);
        bits as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.cached.take() {
            return value;
        }
        let first = self.uniform_f64();
        let second = self.uniform_f64();
        let radius = (-2.0 * (-second).ln_1p()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * first;
        self.cached = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Turns sixteen uniforms into normals: element j pairs with j + 8.
fn box_muller_block(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let angle = std::f32::consts::TAU * *b;
        let (sine, cosine) = angle.sin_cos();
        *a = radius * cosine;
        *b = radius * sine;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!(
                (a - b).abs() <= 2e-6,
                "value {index}: found {a}, expected {b}"
            );
        }
    }

    #[test]
    fn engine_matches_the_published_sequence() {
        let mut engine = MersenneTwister::new(5489);
        let mut value = 0;
        for _ in 0..10_000 {
            value = engine.next_u32();
        }
        assert_eq!(value, 4_123_659_995);
    }

    #[test]
    fn scalar_path_matches_torch() {
        close(
            &TorchGenerator::new(0).randn(5),
            &[
                1.540_996_1,
                -0.293_428_9,
                -2.178_789_4,
                0.568_431_3,
                -1.084_522_4,
            ],
        );
    }

    #[test]
    fn seed_uses_only_its_low_half() {
        let low = TorchGenerator::new(7).randn(40);
        assert_eq!(low, TorchGenerator::new(7 | (9 << 32)).randn(40));
        assert_ne!(low, TorchGenerator::new(8).randn(40));
    }

    #[test]
    fn odd_scalar_draws_keep_the_second_sample() {
        let mut split = TorchGenerator::new(3);
        let mut joined = split.randn(3);
        joined.extend(split.randn(3));
        assert_eq!(joined, TorchGenerator::new(3).randn(6));
    }

    #[test]
    fn a_tail_is_redrawn_over_the_last_block() {
        let whole = TorchGenerator::new(11).randn(32);
        let tailed = TorchGenerator::new(11).randn(33);
        assert_eq!(whole[..16], tailed[..16]);
        assert_ne!(whole[17..32], tailed[17..32]);
    }
}
