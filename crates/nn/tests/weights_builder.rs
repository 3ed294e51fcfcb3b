//! Additions to weights: any order, and contradictions.

use brisk_nn::{
    Activations, HalfType, Init, Int4Weight, Linear, Lora, LowBitSource, Quantization,
    QuantizedWeights, Storage, Tensor, Weights, WeightsBuilder,
};
use brisk_store::{Dtype, MemorySource, TensorSource};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const INPUTS: usize = 64;
const OUTPUTS: usize = 4;

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
}

fn source(tensors: Vec<(&str, Vec<usize>, Vec<f32>)>) -> Arc<dyn TensorSource> {
    let tensors = tensors.into_iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.to_owned(), Dtype::F32, shape, bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).unwrap())
}

fn file() -> Arc<dyn TensorSource> {
    source(vec![
        (
            "a.weight",
            vec![OUTPUTS, INPUTS],
            values(OUTPUTS * INPUTS, 1.0),
        ),
        ("a.bias", vec![OUTPUTS], values(OUTPUTS, 2.0)),
        (
            "b.weight",
            vec![OUTPUTS, INPUTS],
            values(OUTPUTS * INPUTS, 3.0),
        ),
        ("b.bias", vec![OUTPUTS], values(OUTPUTS, 4.0)),
    ])
}

fn lora(seed: f32) -> Arc<Lora> {
    let tensors = source(vec![
        ("a.lora_A.weight", vec![2, INPUTS], values(2 * INPUTS, seed)),
        (
            "a.lora_B.weight",
            vec![OUTPUTS, 2],
            values(OUTPUTS * 2, seed + 1.0),
        ),
    ]);
    Arc::new(Lora::new(tensors, &BTreeMap::new(), None).unwrap())
}

/// Holds the layer `b` in 4 bits.
struct FewBits;

impl LowBitSource for FewBits {
    fn layers(
        &self,
        paths: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> brisk_nn::Result<Option<Int4Weight>> {
        Ok((paths == ["b"]).then(|| Int4Weight {
            outputs: outputs.to_vec(),
            inputs,
            codes: (0..inputs * outputs[0])
                .map(|i| (i % 15) as i8 - 7)
                .collect(),
            scales: vec![0.125; outputs[0]],
            half: HalfType::Bf16,
            ..Int4Weight::default()
        }))
    }

    fn names(&self) -> Vec<String> {
        vec!["b".to_owned()]
    }
}

/// What the layers `a` and `b` give, and the names that were watched.
fn run(weights: &Weights, seen: &Mutex<Vec<String>>) -> (Vec<f32>, Vec<String>) {
    seen.lock().unwrap().clear();
    let layer =
        |name: &str| Linear::load(&weights.pp(name), INPUTS, OUTPUTS, true, Init::Zeros).unwrap();
    let (a, b) = (layer("a"), layer("b"));
    weights.finish(&["b.weight", "b.bias"]).unwrap();
    let x = Tensor::from_vec(values(3 * INPUTS, 5.0), (1, 3, INPUTS)).unwrap();
    let y = Tensor::cat(&[a.forward(&x).unwrap(), b.forward(&x).unwrap()], 1).unwrap();
    let y = y.flatten_all().unwrap().to_vec1().unwrap();
    (y, seen.lock().unwrap().clone())
}

type Addition = Box<dyn Fn(WeightsBuilder) -> WeightsBuilder>;

fn additions(seen: &Arc<Mutex<Vec<String>>>) -> Vec<Addition> {
    let watch = |mark: &'static str| {
        let seen = seen.clone();
        move |builder: WeightsBuilder| {
            let seen = seen.clone();
            builder.watcher(Arc::new(move |name, _| {
                seen.lock().unwrap().push(format!("{mark}{name}"));
            }))
        }
    };
    vec![
        Box::new(|builder| builder.lora(lora(0.5), 0.7)),
        Box::new(|builder| builder.lora(lora(8.5), -0.2)),
        Box::new(|builder| builder.low_bit(Arc::new(FewBits), Activations::Full)),
        Box::new(|builder| builder.quantize(Quantization::EightBit, None)),
        Box::new(|builder| builder.exact(true)),
        Box::new(watch("first ")),
    ]
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for place in 0..count {
            let mut order = shorter.clone();
            order.insert(place, count - 1);
            all.push(order);
        }
    }
    all
}

#[test]
fn every_order_of_additions_gives_the_same_weights() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let additions = additions(&seen);
    let orders = orders(additions.len());
    assert_eq!(orders.len(), 720);
    let found = |order: &[usize]| {
        let start = WeightsBuilder::from_source(file());
        let builder = order
            .iter()
            .fold(start, |builder, i| additions[*i](builder));
        let weights = builder.build().unwrap();
        assert!(weights.is_exact());
        run(&weights, &seen)
    };
    let wanted = found(&orders[0]);
    assert_eq!(wanted.1, ["first a", "first b"]);
    for order in &orders {
        assert_eq!(found(order), wanted, "{order:?}");
    }
    // Each of them counts.
    let plain = run(&Weights::from_source(file()), &seen);
    for left_out in 0..4 {
        let order: Vec<usize> = (0..6).filter(|i| *i != left_out).collect();
        assert_ne!(found(&order).0, wanted.0, "{left_out}");
    }
    assert_ne!(plain.0, wanted.0);
}

#[test]
fn all_watchers_see_what_goes_in() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watch = |mark: &'static str| -> brisk_nn::InputWatcher {
        let seen = seen.clone();
        Arc::new(move |name, _| seen.lock().unwrap().push(format!("{mark} {name}")))
    };
    let builder = WeightsBuilder::from_source(file());
    let builder = builder.watcher(watch("one")).watcher(watch("two"));
    let (_, names) = run(&builder.build().unwrap(), &seen);
    assert_eq!(names, ["one a", "two a", "one b", "two b"]);
}

#[test]
fn variables_are_watched_and_stay_variables() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watch: brisk_nn::InputWatcher = {
        let seen = seen.clone();
        Arc::new(move |name, _| seen.lock().unwrap().push(name.to_owned()))
    };
    let fresh = WeightsBuilder::trainable(None, 7).watcher(watch).build();
    let fresh = fresh.unwrap();
    let (y, names) = run(&fresh, &seen);
    assert_eq!(names, ["a", "b"]);
    assert!(fresh.is_trainable() && fresh.variables().len() == 4);
    let start = |init| {
        let weights = Weights::trainable(None, 7);
        weights
            .get("a.weight", &[2, 2], init)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    assert_ne!(start(Init::Normal(1.0)), vec![vec![0.0; 2]; 2]);
    assert_eq!(y.len(), 3 * 2 * OUTPUTS);
}

#[test]
fn variables_of_a_file_start_adapted() {
    let read = |builder: WeightsBuilder| {
        let weights = builder.build().unwrap();
        let a = weights
            .get("a.weight", &[OUTPUTS, INPUTS], Init::Zeros)
            .unwrap();
        (a.track_op(), a.to_vec2::<f32>().unwrap())
    };
    let frozen = read(WeightsBuilder::from_source(file()).lora(lora(0.5), 0.7));
    let trained = read(WeightsBuilder::trainable(Some(file()), 1).lora(lora(0.5), 0.7));
    assert_eq!(frozen.1, trained.1);
    assert!(trained.0 && !frozen.0);
    assert_ne!(read(WeightsBuilder::from_source(file())).1, frozen.1);
}

#[test]
fn contradictions_are_named_whatever_came_first() {
    let refused = |builder: WeightsBuilder, told: &str| {
        let Err(error) = builder.build() else {
            panic!("accepted: {told}")
        };
        assert!(error.to_string().contains(told), "{error}");
    };
    let trained = || WeightsBuilder::trainable(Some(file()), 0);
    let frozen = || WeightsBuilder::from_source(file());
    let few = Arc::new(FewBits);
    refused(
        trained().low_bit(few.clone(), Activations::Full),
        "cannot be trained",
    );
    refused(
        trained().quantize(Quantization::FourBit, None),
        "cannot be trained",
    );
    refused(
        WeightsBuilder::trainable(None, 0).lora(lora(1.0), 1.0),
        "from nothing",
    );
    refused(frozen().lora(lora(1.0), f32::INFINITY), "finite");
    let twice = frozen().low_bit(few.clone(), Activations::Full);
    refused(twice.low_bit(few, Activations::Full), "two sources");
    let twice = frozen().quantize(Quantization::FourBit, None);
    refused(twice.quantize(Quantization::EightBit, None), "twice");
    let kept = Some(Arc::new(QuantizedWeights::default()));
    refused(frozen().quantize(Quantization::None, kept), "kept");
    assert!(frozen().quantize(Quantization::None, None).build().is_ok());
    let both = frozen().headers_only().lora(lora(1.0), 1.0);
    assert!(both.build().is_ok());
    refused(trained().headers_only(), "names and shapes");
    let random = WeightsBuilder::random(1, Storage::Bf16).lora(lora(1.0), 1.0);
    assert!(random.build().is_ok());
}

#[test]
fn weights_kept_from_another_load_are_left_alone_under_a_lora() {
    let kept = Arc::new(QuantizedWeights::default());
    let builder = WeightsBuilder::from_source(file()).lora(lora(1.0), 1.0);
    let builder = builder.quantize(Quantization::FourBit, Some(kept.clone()));
    run(&builder.build().unwrap(), &Mutex::default());
    assert_eq!(kept.with_made(|made| made.len()), 0);
    let builder = WeightsBuilder::from_source(file());
    let builder = builder.quantize(Quantization::FourBit, Some(kept.clone()));
    run(&builder.build().unwrap(), &Mutex::default());
    assert_eq!(kept.with_made(|made| made.len()), 2);
}
