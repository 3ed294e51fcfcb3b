//! Number formats of 4-bit and 8-bit integers in groups.

use crate::HalfType;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvfp4::Floats;

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
        assert!((relative(&nvfp4.values(1024), &weight) - 0.095).abs() < 0.004);
        let mut eight = weight.clone();
        round_activations(&mut eight, GROUP, 127.0);
        assert!(relative(&eight, &weight) < 0.0065);
    }

    #[test]
    fn groups_of_zeros_stay_zeros() {
        let zeros = vec![0.0; 128];
        let int4 = Integers::round(&zeros, 128, GROUP, 7.0, HalfType::F16);
        assert_eq!(int4.scales, [1.0, 1.0]);
        assert_eq!(int4.values(), zeros);
        assert_eq!(Floats::round(&zeros, HalfType::F16).values(128), zeros);
        let mut x = zeros.clone();
        round_activations(&mut x, GROUP, 7.0);
        assert_eq!(x, zeros);
    }
}
