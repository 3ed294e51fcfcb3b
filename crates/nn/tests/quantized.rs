//! Linear layers that quantize their weights as they are loaded.

use brisk_nn::{Init, Linear, Quantization, QuantizedWeights, Tensor, Weights, WeightsBuilder};
use brisk_store::{Dtype, MemorySource, TensorSource};
use std::sync::Arc;

const OUTPUTS: usize = 24;
const INPUTS: usize = 80;

fn values(count: usize, step: u32) -> Vec<f32> {
    let value = |i: usize| (i as u32).wrapping_mul(2_654_435_761 + 2 * step) >> 8;
    (0..count)
        .map(|i| value(i) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn file() -> Arc<dyn TensorSource> {
    let tensors = [
        (
            "a.weight",
            vec![OUTPUTS, INPUTS],
            values(OUTPUTS * INPUTS, 1),
        ),
        ("a.bias", vec![OUTPUTS], values(OUTPUTS, 2)),
    ];
    let tensors = tensors.into_iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.to_owned(), Dtype::F32, shape, bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).unwrap())
}

fn input() -> Tensor {
    Tensor::from_vec(values(5 * INPUTS, 3), (1, 5, INPUTS)).unwrap()
}

fn run(weights: &Weights) -> brisk_nn::Result<Vec<f32>> {
    let layer = Linear::load(&weights.pp("a"), INPUTS, OUTPUTS, true, Init::Zeros)?;
    weights.finish(&[])?;
    layer.forward(&input())?.flatten_all()?.to_vec1()
}

fn quantizing(how: Quantization, kept: Option<Arc<QuantizedWeights>>) -> Weights {
    let weights = WeightsBuilder::from_source(file()).quantize(how, kept);
    weights.build().unwrap()
}

fn quantized(how: Quantization, kept: Option<Arc<QuantizedWeights>>) -> Vec<f32> {
    run(&quantizing(how, kept)).unwrap()
}

fn error(found: &[f32], wanted: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let lost = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
    (lost / square(&mut wanted.iter().copied())).sqrt()
}

#[test]
fn products_are_near_those_of_the_stored_weights() {
    let wanted = quantized(Quantization::None, None);
    for (how, bound) in [(Quantization::FourBit, 0.1), (Quantization::EightBit, 0.01)] {
        let lost = error(&quantized(how, None), &wanted);
        assert!((bound / 10.0..bound).contains(&lost), "{how:?}: {lost}");
    }
}

#[test]
fn kept_weights_give_the_same_products() {
    for how in [Quantization::FourBit, Quantization::EightBit] {
        let kept = Arc::new(QuantizedWeights::default());
        let first = quantized(how, Some(kept.clone()));
        let tensors = kept.with_made(|made| {
            let owned = made.iter().map(|(name, bytes)| {
                (
                    name.to_string(),
                    Dtype::U8,
                    vec![bytes.len()],
                    bytes.to_vec(),
                )
            });
            owned.collect::<Vec<_>>()
        });
        assert_eq!(tensors[0].0, "a.weight");
        let again = |tensors| {
            let source = Arc::new(MemorySource::new(tensors).unwrap());
            let kept = Some(Arc::new(QuantizedWeights::from_source(source)));
            run(&quantizing(how, kept))
        };
        assert_eq!(again(tensors.clone()).unwrap(), first);

        let mut short = tensors.clone();
        short[0].2[0] -= 1;
        short[0].3.pop();
        let refused = again(short).unwrap_err().to_string();
        assert!(
            refused.contains("a.weight") && refused.contains("belong"),
            "{refused}"
        );
        let refused = again(Vec::new()).unwrap_err().to_string();
        assert!(refused.contains("missing"), "{refused}");
    }
}

#[test]
fn a_weight_of_another_shape_is_reported_as_ever() {
    let weights = quantizing(Quantization::FourBit, None);
    Linear::load(&weights.pp("a"), INPUTS + 1, OUTPUTS, true, Init::Zeros).unwrap();
    let report = weights.finish(&[]).unwrap_err().to_string();
    assert!(
        report.contains("a.weight") && report.contains("[24, 81]"),
        "{report}"
    );
}

#[test]
fn names_are_known_or_refused() {
    for (name, how) in Quantization::ALL {
        assert_eq!(Quantization::from_name(name).unwrap(), how);
        assert_eq!(how.name(), name);
    }
    let refused = Quantization::from_name("3bit").unwrap_err().to_string();
    assert!(
        refused.contains("3bit") && refused.contains("4bit"),
        "{refused}"
    );
}
