//! Pointwise activations and their gradients.

use super::math;
use crate::parallel;
use crate::simd::simd_dispatch;

/// A pointwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x·sigmoid(x).
    Silu,
    /// GELU by the tanh formula.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
}

simd_dispatch! {
    fn relu_run(x: &[f32], y: &mut [f32]) {
        // Written as a comparison so that NaN passes through.
        for (y, &x) in y.iter_mut().zip(x) { *y = if x < 0.0 { 0.0 } else { x }; }
    }
}
simd_dispatch! {
    fn silu_run(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = math::silu(x); }
    }
}
simd_dispatch! {
    fn gelu_run(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = math::gelu_tanh(x); }
    }
}
simd_dispatch! {
    fn gelu_erf_run(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = math::gelu_erf(x); }
    }
}
simd_dispatch! {
    fn relu_back(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((d, &x), &g) in dx.iter_mut().zip(x).zip(dy) { *d = if x > 0.0 { g } else { 0.0 }; }
    }
}
simd_dispatch! {
    fn silu_back(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((d, &x), &g) in dx.iter_mut().zip(x).zip(dy) { *d = g * math::silu_derivative(x); }
    }
}
simd_dispatch! {
    fn gelu_back(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((d, &x), &g) in dx.iter_mut().zip(x).zip(dy) { *d = g * math::gelu_tanh_derivative(x); }
    }
}
simd_dispatch! {
    fn gelu_erf_back(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((d, &x), &g) in dx.iter_mut().zip(x).zip(dy) { *d = g * math::gelu_erf_derivative(x); }
    }
}

/// `y = activation(x)`; both have the same length.
pub fn forward(kind: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "lengths of an activation");
    parallel::rows_mut(y, 1, |start, y| {
        let x = &x[start..start + y.len()];
        match kind {
            Activation::Relu => relu_run(x, y),
            Activation::Silu => silu_run(x, y),
            Activation::GeluTanh => gelu_run(x, y),
            Activation::GeluErf => gelu_erf_run(x, y),
        }
    });
}

/// `dx = dy·activation'(x)`.
pub fn backward(kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(
        x.len() == dx.len() && dy.len() == dx.len(),
        "lengths of an activation gradient"
    );
    parallel::rows_mut(dx, 1, |start, dx| {
        let range = start..start + dx.len();
        let (x, dy) = (&x[range.clone()], &dy[range]);
        match kind {
            Activation::Relu => relu_back(x, dy, dx),
            Activation::Silu => silu_back(x, dy, dx),
            Activation::GeluTanh => gelu_back(x, dy, dx),
            Activation::GeluErf => gelu_erf_back(x, dy, dx),
        }
    });
}

simd_dispatch! {
    fn gate_silu_row(value: &[f32], gate: &[f32], y: &mut [f32]) {
        for ((y, &v), &g) in y.iter_mut().zip(value).zip(gate) { *y = v * math::silu(g); }
    }
}
simd_dispatch! {
    fn gate_silu_back_row(value: &[f32], gate: &[f32], dy: &[f32], dvalue: &mut [f32], dgate: &mut [f32]) {
        let n = dy.len();
        let (value, gate) = (&value[..n], &gate[..n]);
        let (dvalue, dgate) = (&mut dvalue[..n], &mut dgate[..n]);
        for i in 0..n {
            let s = math::sigmoid(gate[i]);
            dvalue[i] = dy[i] * gate[i] * s;
            dgate[i] = dy[i] * value[i] * s * (1.0 + gate[i] * (1.0 - s));
        }
    }
}

simd_dispatch! {
    fn add_run(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) { *y = a + b; }
    }
}

/// `y = a + b`.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "lengths of a sum");
    parallel::rows_mut(y, 1, |start, y| {
        let range = start..start + y.len();
        add_run(&a[range.clone()], &b[range], y);
    });
}

/// Rows of `2·half` values, the first half values and the second half gates:
/// `y = value·silu(gate)`.
pub fn gated_silu(x: &[f32], half: usize, y: &mut [f32]) {
    assert_eq!(x.len(), 2 * y.len(), "lengths of a gate");
    parallel::rows_mut(y, half, |first, y| {
        let x = &x[first * 2 * half..];
        for (y, x) in y.chunks_exact_mut(half).zip(x.chunks_exact(2 * half)) {
            let (value, gate) = x.split_at(half);
            gate_silu_row(value, gate, y);
        }
    });
}

/// Gradient of [`gated_silu`] with respect to its input.
pub fn gated_silu_backward(x: &[f32], half: usize, dy: &[f32], dx: &mut [f32]) {
    assert!(
        x.len() == dx.len() && x.len() == 2 * dy.len(),
        "lengths of a gate gradient"
    );
    parallel::rows_mut(dx, 2 * half, |first, dx| {
        let rows = x[first * 2 * half..].chunks_exact(2 * half);
        let grads = dy[first * half..].chunks_exact(half);
        for ((dx, x), dy) in dx.chunks_exact_mut(2 * half).zip(rows).zip(grads) {
            let (value, gate) = x.split_at(half);
            let (dvalue, dgate) = dx.split_at_mut(half);
            gate_silu_back_row(value, gate, dy, dvalue, dgate);
        }
    });
}

/// A smooth activation that gates another branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// SiLU, as in Llama's feed-forward network.
    Silu,
    /// GELU by the tanh formula, as in Gemma's.
    GeluTanh,
}

simd_dispatch! {
    fn gate_run(kind: Gate, gate: &[f32], up: &[f32], y: &mut [f32]) {
        let values = y.iter_mut().zip(gate).zip(up);
        match kind {
            Gate::Silu => for ((y, &g), &u) in values { *y = math::silu(g) * u; },
            Gate::GeluTanh => for ((y, &g), &u) in values { *y = math::gelu_tanh(g) * u; },
        }
    }
}
simd_dispatch! {
    fn gate_back(kind: Gate, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32]) {
        let values = dgate.iter_mut().zip(gate).zip(up).zip(dy);
        match kind {
            Gate::Silu => for (((d, &g), &u), &y) in values { *d = y * u * math::silu_derivative(g); },
            Gate::GeluTanh => for (((d, &g), &u), &y) in values { *d = y * u * math::gelu_tanh_derivative(g); },
        }
    }
}

/// `y = activation(gate)·up`.
pub fn gated(kind: Gate, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(
        gate.len() == y.len() && up.len() == y.len(),
        "lengths of a gate"
    );
    parallel::rows_mut(y, 1, |start, y| {
        let range = start..start + y.len();
        gate_run(kind, &gate[range.clone()], &up[range], y);
    });
}

/// Gradient of [`gated`] with respect to the gate; the gradient with respect to `up` is
/// `gated(kind, gate, dy)`.
pub fn gated_backward_gate(kind: Gate, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32]) {
    assert!(
        gate.len() == dy.len() && up.len() == dy.len() && dgate.len() == dy.len(),
        "lengths"
    );
    parallel::rows_mut(dgate, 1, |start, d| {
        let range = start..start + d.len();
        gate_back(
            kind,
            &gate[range.clone()],
            &up[range.clone()],
            &dy[range],
            d,
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, noise};

    #[test]
    fn sums_are_those_of_the_values() {
        for count in [0, 3, 100_000] {
            let (a, b) = (noise(count, 1), noise(count, 2));
            let mut y = vec![0.0; count];
            add(&a, &b, &mut y);
            assert!(
                y.iter()
                    .zip(a.iter().zip(&b))
                    .all(|(y, (a, b))| *y == a + b)
            );
        }
    }

    #[test]
    fn gates_match_scalar_statements_and_differences() {
        for half in [1usize, 5, 64, 130] {
            let rows = 7;
            let x = noise(rows * 2 * half, 1);
            let dy = noise(rows * half, 2);
            let mut y = vec![0.0; rows * half];
            gated_silu(&x, half, &mut y);
            let mut dx = vec![0.0; x.len()];
            gated_silu_backward(&x, half, &dy, &mut dx);
            for r in 0..rows {
                for c in 0..half {
                    let (v, g) = (x[r * 2 * half + c], x[r * 2 * half + half + c]);
                    assert!((y[r * half + c] - v * math::silu(g)).abs() < 1e-6);
                    let d = dy[r * half + c];
                    assert!((dx[r * 2 * half + c] - d * math::silu(g)).abs() < 1e-5);
                    let want = d * v * math::silu_derivative(g);
                    assert!((dx[r * 2 * half + half + c] - want).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn large_runs_equal_small_runs() {
        let x = noise(100_003, 5);
        for kind in [
            Activation::Relu,
            Activation::Silu,
            Activation::GeluTanh,
            Activation::GeluErf,
        ] {
            let mut whole = vec![0.0; x.len()];
            forward(kind, &x, &mut whole);
            let mut part = vec![0.0; 100];
            forward(kind, &x[50_000..50_100], &mut part);
            assert_close(&whole[50_000..50_100], &part, 1e-7);
        }
    }
}
