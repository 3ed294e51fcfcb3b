//! Every rule against central differences of the operation itself.

use super::*;
use crate::ops::{self, AttentionOptions};
use crate::random::SplitMix64;
use crate::{Linear, TimestepEmbedding, sinusoid};

fn random(seed: u64, dims: &[usize]) -> Tensor {
    let mut random = SplitMix64::new(seed);
    let mut uniform = || (random.next_u64() >> 40) as f32 / (1u32 << 24) as f32;
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect();
    Tensor::from_vec(values, dims).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f64::from).collect()
}

/// Relative distance of two lists.
fn distance(found: &[f64], want: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let far = norm(&mut found.iter().zip(want).map(|(a, b)| a - b));
    far / norm(&mut want.iter().copied()).max(1e-12)
}

/// Holds value and tangent of `f` at random inputs of these shapes to f without tangents.
fn hold(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Tensor) {
    let at: Vec<Tensor> = (0..).zip(shapes).map(|(i, s)| random(i, s)).collect();
    let along: Vec<Tensor> = (0..).zip(shapes).map(|(i, s)| random(100 + i, s)).collect();
    // Each input alone, then all together.
    for moving in (1..=shapes.len()).chain([usize::MAX]) {
        let moves = |index: usize| moving == usize::MAX || moving == index + 1;
        let dual: Vec<Tensor> = (0..shapes.len())
            .map(|i| match moves(i) {
                true => at[i].with_tangent(&along[i]).unwrap(),
                false => at[i].clone(),
            })
            .collect();
        let result = f(&dual);
        let tangent = result
            .tangent()
            .unwrap_or_else(|| panic!("{name}: no tangent"));
        assert!(
            distance(&values(&result.primal()), &values(&f(&at))) < 1e-5,
            "{name}: value"
        );
        let shifted = |by: f64| {
            let inputs: Vec<Tensor> = (0..shapes.len())
                .map(|i| match moves(i) {
                    true => (&at[i] + (&along[i] * by).unwrap()).unwrap(),
                    false => at[i].clone(),
                })
                .collect();
            values(&f(&inputs))
        };
        let h = 2e-3;
        let slope: Vec<f64> = shifted(h)
            .iter()
            .zip(shifted(-h))
            .map(|(plus, minus)| (plus - minus) / (2.0 * h))
            .collect();
        let error = distance(&values(&tangent), &slope);
        assert!(error < 2e-3, "{name}, input {moving}: {error:.2e}");
    }
}

#[test]
fn linear_maps_and_arithmetic() {
    let (w, b) = (random(7, &[5, 6]), random(8, &[5]));
    hold("linear", &[&[2, 3, 6]], |x| {
        ops::linear(&x[0], &w, Some(&b)).unwrap()
    });
    let packed = Linear::new(w.clone(), Some(b.clone())).unwrap();
    hold("packed linear", &[&[2, 3, 6]], |x| {
        packed.forward(&x[0]).unwrap()
    });
    let (w, b) = (random(9, &[3, 3, 6]), random(10, &[6]));
    hold("depthwise", &[&[2, 4, 5, 6]], |x| {
        ops::depthwise_conv2d(&x[0], &w, Some(&b)).unwrap()
    });
    let w = random(11, &[4, 3, 3, 6]);
    hold("conv2d", &[&[2, 4, 5, 6]], |x| {
        ops::conv2d(&x[0], &w, None, 1, 1).unwrap()
    });
    hold("arithmetic", &[&[2, 3, 4], &[2, 1, 4], &[2, 3, 1]], |x| {
        let sum = x[0].broadcast_add(&x[1]).unwrap();
        let product = sum.broadcast_mul(&x[2]).unwrap();
        let safe = (x[1].broadcast_mul(&x[1]).unwrap() + 1.0).unwrap();
        product
            .broadcast_div(&safe)
            .unwrap()
            .broadcast_sub(&x[2])
            .unwrap()
    });
    hold("arrangement", &[&[2, 3, 4], &[2, 1, 4]], |x| {
        let all = Tensor::cat(&[&x[0], &x[1]], 1).unwrap();
        let turned = all.transpose(1, 2).unwrap().contiguous().unwrap();
        (turned.narrow(2, 1, 2).unwrap() * 3.0).unwrap()
    });
}

#[test]
fn activations_and_gates() {
    type Function = fn(&Tensor) -> Result<Tensor>;
    let one: [(&str, Function); 4] = [
        ("silu", ops::silu),
        ("gelu_tanh", ops::gelu_tanh),
        ("gelu_erf", ops::gelu_erf),
        ("gated_silu", ops::gated_silu),
    ];
    for (name, f) in one {
        hold(name, &[&[3, 8]], |x| f(&x[0]).unwrap());
    }
    // Away from the bend, which a difference would step over.
    hold("relu", &[&[3, 8]], |x| {
        ops::relu(&(x[0].broadcast_mul(&x[0]).unwrap() - 1e-9).unwrap()).unwrap()
    });
    hold("silu_times", &[&[3, 8], &[3, 8]], |x| {
        ops::silu_times(&x[0], &x[1]).unwrap()
    });
}

#[test]
fn norms_and_modulation() {
    let w = random(7, &[8]);
    hold("rms_norm", &[&[2, 3, 8]], |x| {
        ops::rms_norm(&x[0], &w, Some(&w), 1e-5).unwrap()
    });
    hold(
        "layer_norm_modulate",
        &[&[2, 3, 8], &[2, 8], &[2, 8]],
        |x| ops::layer_norm_modulate(&x[0], &x[1], &x[2], 1e-6).unwrap(),
    );
    hold("gate_residual", &[&[2, 3, 8], &[2, 8], &[2, 3, 8]], |x| {
        ops::gate_residual(&x[0], &x[1], &x[2]).unwrap()
    });
}

#[test]
fn attentions() {
    // Squares, as a difference would step over ReLU's bend.
    hold(
        "linear_attention",
        &[&[2, 5, 8], &[2, 5, 8], &[2, 5, 8]],
        |x| {
            let square = |x: &Tensor| x.broadcast_mul(x).unwrap();
            ops::linear_attention(&square(&x[0]), &square(&x[1]), &x[2], 2, 1e-15).unwrap()
        },
    );
    let mut options = AttentionOptions::new(2, 4);
    for lengths in [None, Some(vec![3, 6])] {
        options.key_lengths = lengths;
        hold("attention", &[&[2, 5, 8], &[2, 6, 8], &[2, 6, 8]], |x| {
            ops::attention(&x[0], &x[1], &x[2], &options).unwrap()
        });
    }
    options.causal = Some(0);
    let x = random(0, &[2, 5, 8]);
    let dual = x.with_tangent(&x).unwrap();
    assert!(ops::attention(&dual, &x, &x, &options).is_err());
}

#[test]
fn times() {
    hold("sinusoid", &[&[3]], |t| sinusoid(&t[0], 8).unwrap());
    let embedding = TimestepEmbedding::load(&crate::Weights::trainable(None, 3), 8, 6).unwrap();
    hold("timestep embedding", &[&[3]], |t| {
        embedding.forward(&t[0]).unwrap()
    });
}

#[test]
fn what_has_no_rule_says_so() {
    let x = random(0, &[2, 3]);
    let dual = x.with_tangent(&x).unwrap();
    assert!(dual.exp().is_err() && dual.to_vec2::<f32>().is_err());
    assert!(x.with_tangent(&random(0, &[3, 2])).is_err());
    assert!(dual.with_tangent(&x).is_err(), "no tangents of tangents");
    assert!(
        (&dual + random(1, &[2, 1])).is_err(),
        "no shapes that only broadcasting fits"
    );
}
