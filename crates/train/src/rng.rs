//! A small seeded generator whose whole state is one number, so that a checkpoint can hold it.

use brisk_nn::random::SplitMix64;

/// SplitMix64: passes BigCrush, one 64-bit word of state. Not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    bits: SplitMix64,
}

impl Rng {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Rng {
        // Neighbouring seeds are neighbouring states; one step apart mixes them.
        Rng::from_state(SplitMix64::new(seed).next_u64())
    }

    /// A generator for the `index`-th independent stream of `seed`.
    pub fn stream(seed: u64, index: u64) -> Rng {
        let mut base = Rng::new(seed);
        let first = base.next_u64();
        Rng::new(first ^ index.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The state to save.
    pub fn state(&self) -> u64 {
        self.bits.state()
    }

    /// Continues from a saved state.
    pub fn from_state(state: u64) -> Rng {
        Rng {
            bits: SplitMix64::new(state),
        }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.bits.next_u64()
    }

    /// Uniform in 0..1, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..`bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Two independent standard normal numbers (Box–Muller).
    pub fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// `count` standard normal numbers.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let (a, b) = self.normal_pair();
            values.push(a as f32);
            values.push(b as f32);
        }
        values.truncate(count);
        values
    }

    /// The numbers 0..`count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_continues_the_same_numbers() {
        let mut rng = Rng::new(3);
        rng.next_u64();
        let mut copy = Rng::from_state(rng.state());
        assert_eq!(rng.normals(9), copy.normals(9));
    }

    #[test]
    fn normals_have_unit_moments() {
        let values = Rng::new(1).normals(100_000);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn permutations_hold_every_number_once() {
        let mut order = Rng::stream(5, 2).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
