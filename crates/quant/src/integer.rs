//! Number formats: 4-bit and 8-bit integers in groups, and nvfp4.

use crate::record::HalfType;

/// Inputs that share a scale in the int4 format.
pub const GROUP: usize = 64;

/// Inputs that share a scale in the nvfp4 format.
pub const MICRO_GROUP: usize = 16;

/// Integers in groups along the inputs, each with a scale: value = code·scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Integers {
    /// `[outputs, inputs]`, within ±`most`.
    pub codes: Vec<i8>,
    /// `[outputs, inputs / group]`, exact in the half type they were made for.
    pub scales: Vec<f32>,
    /// Inputs a group.
    pub group: usize,
}

/// The scale of one group: its largest size over `most`, held in the half type before it is used; 1
/// for a group of zeros.
pub fn scale_of(values: &[f32], most: f32, half: HalfType) -> f32 {
    let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let scale = half.round(largest / most);
    if scale == 0.0 { 1.0 } else { scale }
}

impl Integers {
    /// Rounds a weight `[outputs, inputs]` to nearest in groups of `group` inputs, within ±`most` (7
    /// or 127); −8 is never used.
    ///
    /// # Panics
    /// When `inputs` is not a multiple of `group`.
    pub fn round(weight: &[f32], inputs: usize, group: usize, most: f32, half: HalfType) -> Self {
        assert!(
            inputs.is_multiple_of(group),
            "{inputs} inputs in groups of {group}"
        );
        let mut codes = Vec::with_capacity(weight.len());
        let mut scales = Vec::with_capacity(weight.len() / group);
        for values in weight.chunks_exact(group) {
            let scale = scale_of(values, most, half);
            scales.push(scale);
            codes.extend(values.iter().map(|v| code_of(*v, scale, most)));
        }
        Self {
            codes,
            scales,
            group,
        }
    }

    /// code·scale, `[outputs, inputs]`.
    pub fn values(&self) -> Vec<f32> {
        let groups = self.codes.chunks_exact(self.group).zip(&self.scales);
        groups
            .flat_map(|(codes, scale)| codes.iter().map(move |c| f32::from(*c) * scale))
            .collect()
    }
}

/// The nearest code, ties to even.
pub fn code_of(value: f32, scale: f32, most: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-most, most) as i8
}

/// Rounds activations as the kernels do: per row and group, scale = largest/most.
pub fn round_activations(x: &mut [f32], group: usize, most: f32) {
    for values in x.chunks_mut(group) {
        let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        if largest == 0.0 {
            continue;
        }
        let (scale, inverse) = (largest / most, most / largest);
        for value in values {
            *value = (*value * inverse).round_ties_even() * scale;
        }
    }
}

/// The sizes that a 4-bit float (`e2m1`) can have; its fourth bit is the sign.
pub const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The value of an `e2m1` code, 0 to 15.
pub fn e2m1_value(code: u8) -> f32 {
    let size = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { size } else { -size }
}

/// The nearest `e2m1` code; a tie goes to the even one.
pub fn e2m1_code(value: f32) -> u8 {
    let size = value.abs();
    let above = E2M1.iter().position(|v| *v >= size).unwrap_or(7);
    let code = if above == 0 {
        0
    } else {
        let (low, high) = (size - E2M1[above - 1], E2M1[above] - size);
        match low.total_cmp(&high) {
            std::cmp::Ordering::Less => above - 1,
            std::cmp::Ordering::Greater => above,
            std::cmp::Ordering::Equal => above - above % 2,
        }
    };
    code as u8 | if value < 0.0 { 8 } else { 0 }
}

/// The nearest `e4m3fn` byte of a size between 0 and 448, ties to even.
pub fn e4m3_code(value: f32) -> u8 {
    let value = value.clamp(0.0, 448.0);
    // Positive codes are in order, so the nearest is one of two neighbours.
    let (mut low, mut high) = (0u8, 0x7e);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if brisk_store::e4m3_to_f32(middle) <= value {
            low = middle;
        } else {
            high = middle;
        }
    }
    let below = value - brisk_store::e4m3_to_f32(low);
    let above = brisk_store::e4m3_to_f32(high) - value;
    match below.total_cmp(&above) {
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Greater => high,
        std::cmp::Ordering::Equal => low + low % 2,
    }
}

/// A weight in nvfp4: value = e2m1(code)·e4m3(scale)·tensor_scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Floats {
    /// `[outputs, inputs]`, 0 to 15.
    pub codes: Vec<u8>,
    /// `[outputs, inputs / 16]`, `e4m3fn`.
    pub scales: Vec<u8>,
    /// One for the whole weight.
    pub tensor_scale: f32,
}

impl Floats {
    /// Rounds a weight `[outputs, inputs]` to nearest.
    ///
    /// # Panics
    /// When its length is not a multiple of 16.
    pub fn round(weight: &[f32], half: HalfType) -> Self {
        assert!(weight.len().is_multiple_of(MICRO_GROUP));
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let tensor_scale = match half.round(largest(weight) / 6.0 / 448.0) {
            0.0 => 1.0,
            scale => scale,
        };
        let mut codes = Vec::with_capacity(weight.len());
        let mut scales = Vec::with_capacity(weight.len() / MICRO_GROUP);
        for values in weight.chunks_exact(MICRO_GROUP) {
            let scale = e4m3_code(largest(values) / 6.0 / tensor_scale);
            let step = brisk_store::e4m3_to_f32(scale) * tensor_scale;
            scales.push(scale);
            codes.extend(
                values
                    .iter()
                    .map(|v| if step == 0.0 { 0 } else { e2m1_code(v / step) }),
            );
        }
        Self {
            codes,
            scales,
            tensor_scale,
        }
    }

    /// `[outputs, inputs]`.
    pub fn values(&self) -> Vec<f32> {
        let groups = self.codes.chunks_exact(MICRO_GROUP).zip(&self.scales);
        groups
            .flat_map(|(codes, scale)| {
                let step = brisk_store::e4m3_to_f32(*scale) * self.tensor_scale;
                codes.iter().map(move |code| e2m1_value(*code) * step)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaussian values.
    fn gaussian(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        (0..count)
            .map(|_| {
                let (u, v) = (uniform(), uniform());
                ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            })
            .collect()
    }

    fn relative(a: &[f32], b: &[f32]) -> f64 {
        let square = |v: f64| v * v;
        let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
        let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
        (difference / size).sqrt()
    }

    #[test]
    fn the_noise_of_each_format_on_gaussian_values_is_what_theory_gives() {
        let weight = gaussian(256 * 1024, 7);
        let half = HalfType::Bf16;
        let int4 = Integers::round(&weight, 1024, GROUP, 7.0, half);
        assert!((relative(&int4.values(), &weight) - 0.108).abs() < 0.004);
        assert!(int4.codes.iter().all(|c| (-7..=7).contains(c)));
        let nvfp4 = Floats::round(&weight, half);
        assert!((relative(&nvfp4.values(), &weight) - 0.095).abs() < 0.004);
        let mut eight = weight.clone();
        round_activations(&mut eight, GROUP, 127.0);
        assert!(relative(&eight, &weight) < 0.0065);
    }

    #[test]
    fn floats_round_to_nearest_with_ties_to_even() {
        for code in 0..16 {
            if code != 8 {
                assert_eq!(e2m1_code(e2m1_value(code)), code);
            }
        }
        let cases = [
            (0.25, 0),
            (0.75, 2),
            (1.25, 2),
            (1.75, 4),
            (2.5, 4),
            (3.5, 6),
            (5.0, 6),
            (9.0, 7),
        ];
        for (value, code) in cases {
            assert_eq!(e2m1_code(value), code, "{value}");
        }
        for byte in 0..0x7f {
            assert_eq!(e4m3_code(brisk_store::e4m3_to_f32(byte)), byte);
        }
        assert_eq!(e4m3_code(1e9), 0x7e);
        assert_eq!(e4m3_code(17.0), e4m3_code(16.0));
    }

    #[test]
    fn groups_of_zeros_stay_zeros() {
        let zeros = vec![0.0; 128];
        let int4 = Integers::round(&zeros, 128, GROUP, 7.0, HalfType::F16);
        assert_eq!(int4.scales, [1.0, 1.0]);
        assert_eq!(int4.values(), zeros);
        assert_eq!(Floats::round(&zeros, HalfType::F16).values(), zeros);
        let mut x = zeros.clone();
        round_activations(&mut x, GROUP, 7.0);
        assert_eq!(x, zeros);
    }
}
