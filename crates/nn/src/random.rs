//! The generator behind everything that brisk makes up and no reference fixes.

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, from any seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Added to the state for every number.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The sequence that starts from this state.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The state, which [`SplitMix64::new`] goes on from.
    pub fn state(&self) -> u64 {
        self.0
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        mix(self.0)
    }
}

/// The output function of [`SplitMix64`]: a bijection that spreads every bit.
pub fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a of the name, started by the seed: a generator's state for what has a name.
pub fn hash(name: &str, seed: u64) -> u64 {
    name.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published C code.
    #[test]
    fn gives_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let found: [u64; 3] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(
            found,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
        let mut again = SplitMix64::new(random.state());
        assert_eq!(again.next_u64(), random.next_u64());
    }
}
