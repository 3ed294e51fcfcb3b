//! Loading, reporting and adapting weights.

use brisk_nn::{
    Conv2d, ConvOptions, Error, Init, Linear, RmsNorm, RmsNormKind, Tensor, Weights, ops,
};
use brisk_store::{Dtype, MemorySource, TensorSource};
use std::sync::Arc;

fn source(tensors: &[(&str, &[usize], Vec<f32>)]) -> Arc<dyn TensorSource> {
    let tensors = tensors.iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.to_string(), Dtype::F32, shape.to_vec(), bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).expect("valid tensors"))
}

#[test]
fn every_problem_is_reported_at_once() {
    let source = source(&[
        ("a.weight", &[2, 2], vec![1.0; 4]),
        ("b.weight", &[3], vec![1.0; 3]),
        ("c.weight", &[1], vec![f32::NAN]),
        ("d.extra", &[1], vec![1.0]),
        ("e.ignored", &[1], vec![1.0]),
    ]);
    let weights = Weights::from_source(source);
    Linear::load(&weights.pp("a"), 2, 2, true, Init::Zeros).unwrap();
    weights.pp("b").get("weight", &[4], Init::Zeros).unwrap();
    weights.pp("c").get("weight", &[1], Init::Zeros).unwrap();
    let Err(Error::Weights(report)) = weights.finish(&["e."]) else {
        panic!("accepted")
    };
    assert_eq!(report.missing, ["a.bias"]);
    assert_eq!(report.unexpected, ["d.extra"]);
    assert_eq!(report.non_finite, ["c.weight"]);
    assert_eq!(
        report.misshapen,
        [("b.weight".to_string(), vec![3], vec![4])]
    );
    let text = report.to_string();
    assert!(
        text.contains("a.bias") && text.contains("found [3], expected [4]"),
        "{text}"
    );
}

#[test]
fn variables_change_what_their_layers_compute() {
    let weights = Weights::trainable(None, 7);
    let conv = Conv2d::load(&weights.pp("conv"), 2, 3, ConvOptions::SAME_3X3).unwrap();
    let norm = RmsNorm::load(&weights.pp("norm"), 3, 1e-6, RmsNormKind::OnePlusWeight).unwrap();
    let x = Tensor::ones((1, 4, 5, 2), brisk_nn::DType::F32).unwrap();
    let forward = || norm.forward(&conv.forward(&x).unwrap()).unwrap();
    let before = forward();
    let loss = before.sqr().unwrap().sum_all().unwrap();
    let gradients = loss.host().unwrap().backward().unwrap();
    let variables = weights.variables();
    assert_eq!(variables.len(), 3);
    for (name, variable) in &variables {
        assert!(gradients.get(variable).is_some(), "no gradient for {name}");
        variable
            .set(&(variable.as_tensor() + 0.5).unwrap())
            .unwrap();
    }
    let difference = (forward() - before)
        .unwrap()
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() > 1e-3);
}

#[test]
fn starting_values_depend_on_name_and_seed_only() {
    let start = |seed, name: &str| -> Vec<f32> {
        let weights = Weights::trainable(None, seed);
        weights
            .get(name, &[50, 40], Init::Normal(2.0))
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    assert_eq!(start(1, "a"), start(1, "a"));
    assert_ne!(start(1, "a"), start(2, "a"));
    assert_ne!(start(1, "a"), start(1, "b"));
    let values = start(1, "a");
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    assert!(
        mean.abs() < 0.15 && (square.sqrt() - 2.0).abs() < 0.1,
        "{mean} {square}"
    );
}

#[test]
fn wrong_sizes_are_errors() {
    let x = Tensor::ones((1, 4, 6), brisk_nn::DType::F32).unwrap();
    let other = Tensor::ones((1, 4, 5), brisk_nn::DType::F32).unwrap();
    assert!(ops::linear_attention(&x, &other, &x, 2, 1e-15).is_err());
    assert!(ops::attention(&x, &other, &other, &ops::AttentionOptions::new(2, 3)).is_err());
    assert!(ops::gated_silu(&other).is_err());
    assert!(ops::rotary(&x, 2, 10_000.0, 0).is_err());
    assert!(ops::pixel_unshuffle(&x, 2).is_err());
}

#[test]
fn absurd_shapes_are_reported_and_not_allocated() {
    let weights = Weights::from_source(source(&[("a", &[1], vec![1.0])]));
    for shape in [&[1 << 40, 8][..], &[usize::MAX, 2]] {
        let error = weights.get("b", shape, Init::Zeros).unwrap_err();
        assert!(
            error.to_string().contains("missing (") && error.to_string().contains('b'),
            "{error}"
        );
    }
}
