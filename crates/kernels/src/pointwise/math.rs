//! Scalar functions written so that loops over them vectorise.
//!
//! NaN goes in and NaN comes out, so that a non-finite activation can be noticed later.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// eˣ with a relative error under 2e-7; saturates at x = −87.3 and x = 88.3.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x - whole * LN2_HIGH - whole * LN2_LOW;
    let mut p = 1.987_569_2e-4f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    y * f32::from_bits((power.wrapping_add(127) as u32) << 23)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x·sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// Derivative of [`silu`].
#[inline(always)]
pub fn silu_derivative(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

/// tanh x.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // The odd series near zero keeps the relative error small where 1 − 2/(e²ˣ+1) cancels.
    let small = {
        let s = x * x;
        let mut p = -5.704_989e-3f32;
        p = p * s + 2.063_909e-2;
        p = p * s - 5.373_971_6e-2;
        p = p * s + 1.333_144_2e-1;
        p = p * s - 3.333_328e-1;
        x + x * s * p
    };
    let large = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.625 { small } else { large }
}

const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// GELU by the tanh formula.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x)))
}

/// The share of a standard normal distribution below x, with a relative error under 2e-6 also far below
/// zero: erfc by a rational Chebyshev fit (Numerical Recipes, 6.2).
#[inline(always)]
pub fn normal_share(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77f32;
    for factor in [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = p * t + factor;
    }
    let tail = 0.5 * t * exp(p - z * z);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// GELU by the error function.
#[inline(always)]
pub fn gelu_erf(x: f32) -> f32 {
    x * normal_share(x)
}

/// Derivative of [`gelu_erf`].
#[inline(always)]
pub fn gelu_erf_derivative(x: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3;
    normal_share(x) + x * DENSITY * exp(-0.5 * x * x)
}

/// Derivative of [`gelu_tanh`].
#[inline(always)]
pub fn gelu_tanh_derivative(x: f32) -> f32 {
    let t = tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x));
    let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_match_f64() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let d = x as f64;
            let e = exp(x) as f64;
            assert!((e - d.exp()).abs() <= 4e-7 * d.exp(), "exp({x}) = {e}");
            let t = tanh(x) as f64;
            assert!(
                (t - d.tanh()).abs() <= 4e-7 * d.tanh().abs() + 1e-9,
                "tanh({x}) = {t}"
            );
            let s = silu(x) as f64;
            let want = d / (1.0 + (-d).exp());
            assert!(
                (s - want).abs() <= 5e-7 * want.abs() + 1e-30,
                "silu({x}) = {s}"
            );
        }
        assert!(exp(f32::NAN).is_nan() && silu(f32::NAN).is_nan() && gelu_tanh(f32::NAN).is_nan());
        assert!(gelu_erf(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_share_keeps_its_digits_on_both_sides() {
        // Φ(x) as SciPy has it.
        for (x, wanted) in [
            (-8.0f32, 6.220_960_6e-16f64),
            (-4.0, 3.167_124_2e-5),
            (-1.5, 6.680_720_1e-2),
            (-0.25, 0.401_293_674),
            (0.0, 0.5),
            (0.75, 0.773_372_648),
            (3.0, 0.998_650_102),
            (40.0, 1.0),
        ] {
            let found = f64::from(normal_share(x));
            assert!((found - wanted).abs() < 5e-6 * wanted, "{x}: {found}");
        }
        assert!(gelu_erf(-60.0).abs() < 1e-30);
    }

    #[test]
    fn derivatives_match_differences() {
        for i in -60..60 {
            let x = i as f32 * 0.1;
            let h = 1e-2;
            let silu_difference = (silu(x + h) - silu(x - h)) / (2.0 * h);
            let gelu_difference = (gelu_tanh(x + h) - gelu_tanh(x - h)) / (2.0 * h);
            let erf_difference = (gelu_erf(x + h) - gelu_erf(x - h)) / (2.0 * h);
            assert!((erf_difference - gelu_erf_derivative(x)).abs() < 1e-4);
            assert!((silu_difference - silu_derivative(x)).abs() < 1e-4);
            assert!((gelu_difference - gelu_tanh_derivative(x)).abs() < 1e-4);
        }
    }
}
