//! What is said of adapters before anything is computed with them.

use brisk_nn::{Init, Lora, Weights, WeightsBuilder};
use brisk_store::{Dtype, MemorySource, TensorSource};
use std::collections::BTreeMap;
use std::sync::Arc;

type Tensors<'a> = &'a [(&'a str, &'a [usize], f32)];

/// Tensors that hold one value each.
fn source(tensors: Tensors, dtype: Dtype) -> Arc<dyn TensorSource> {
    let tensors = tensors.iter().map(|(name, shape, value)| {
        let count = shape.iter().product::<usize>();
        let bytes = match dtype {
            Dtype::F32 => value.to_le_bytes().repeat(count),
            _ => vec![1; count * dtype.size()],
        };
        (name.to_string(), dtype, shape.to_vec(), bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).unwrap())
}

fn open(tensors: Tensors, metadata: &str) -> brisk_nn::Result<Lora> {
    let mut table = BTreeMap::new();
    if !metadata.is_empty() {
        table.insert("lora_adapter_metadata".to_owned(), metadata.to_owned());
    }
    Lora::new(source(tensors, Dtype::F32), &table, None)
}

/// A model of one layer with a bias, built from names and shapes.
fn build(weights: &Weights) -> brisk_nn::Result<()> {
    weights.get("x.weight", &[2, 3], Init::Zeros)?;
    weights.get("x.bias", &[2], Init::Zeros)?;
    weights.finish(&[])
}

fn check(lora: Lora) -> brisk_nn::Result<()> {
    let model = source(
        &[("x.weight", &[2, 3], 1.0), ("x.bias", &[2], 0.0)],
        Dtype::F32,
    );
    let weights = WeightsBuilder::from_source(model).headers_only();
    build(&weights.lora(Arc::new(lora), 1.0).build()?)
}

const DOWN: (&str, &[usize], f32) = ("x.lora_A.weight", &[1, 3], 1.0);
const UP: (&str, &[usize], f32) = ("x.lora_B.weight", &[2, 1], 1.0);

#[test]
fn names_and_shapes_are_checked_from_headers() {
    check(open(&[DOWN, UP], "").unwrap()).unwrap();
    check(open(&[DOWN, UP, ("x.lora_B.bias", &[2], 1.0)], "").unwrap()).unwrap();
    for (tensors, told) in [
        (&[("x.lora_A.weight", &[1, 4][..], 1.0), UP][..], "[1, 4]"),
        (&[DOWN, ("x.lora_B.weight", &[5, 1], 1.0)], "[5, 1]"),
        (&[DOWN, UP, ("x.lora_B.bias", &[3], 1.0)], "x.lora_B.bias"),
        (
            &[DOWN, UP, ("x.lora_magnitude_vector", &[3], 1.0)],
            "magnitude",
        ),
        (
            &[
                ("z.lora_A.weight", &[1, 3], 1.0),
                ("z.lora_B.weight", &[2, 1], 1.0),
            ],
            "such as z",
        ),
    ] {
        let refused = check(open(tensors, "").unwrap()).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    // Values are looked at where they are asked for.
    let broken = open(&[DOWN, ("x.lora_B.weight", &[2, 1], f32::NAN)], "").unwrap();
    let refused = broken.check_values().unwrap_err().to_string();
    assert!(refused.contains("x.lora_B.weight holds NaN"), "{refused}");
    check(broken).unwrap();
}

#[test]
fn whole_numbers_are_no_weights() {
    let adapter = Lora::new(source(&[DOWN, UP], Dtype::I8), &BTreeMap::new(), None).unwrap();
    let refused = check(adapter).unwrap_err().to_string();
    assert!(
        refused.contains("lora_A.weight holds whole numbers (I8)"),
        "{refused}"
    );
    let model = source(
        &[("x.weight", &[2, 3], 1.0), ("x.bias", &[2], 0.0)],
        Dtype::U8,
    );
    for builder in [
        WeightsBuilder::from_source(model.clone()),
        WeightsBuilder::from_source(model).headers_only(),
    ] {
        let refused = build(&builder.build().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("x.weight: found U8"), "{refused}");
    }
}

#[test]
fn settings_agree_with_the_tensors() {
    for (metadata, told) in [
        (r#"{"transformer.r": 4}"#, "rank 1, but its settings say 4"),
        (
            r#"{"transformer.r": 4, "transformer.rank_pattern": {"y": 2}}"#,
            "say 2, 4",
        ),
        (r#"{"transformer.lora_bias": true}"#, "no lora_B.bias"),
    ] {
        let refused = open(&[DOWN, UP], metadata).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    let fits = r#"{"transformer.r": 4, "transformer.rank_pattern": {"x": 1}}"#;
    assert!(open(&[DOWN, UP], fits).unwrap().notes().is_empty());
    let more = open(&[DOWN, UP], r#"{"transformer.later": 1}"#).unwrap();
    assert!(
        more.notes()[0].contains("nothing reads later"),
        "{:?}",
        more.notes()
    );
}

#[test]
fn one_layer_under_names_of_two_trainers_is_refused() {
    let kohya = [
        ("lora_unet_x_y.lora_down.weight", &[1, 3][..], 1.0),
        ("lora_unet_x_y.lora_up.weight", &[2, 1], 1.0),
        ("transformer.x.y.lora_A.weight", &[1, 3], 1.0),
        ("transformer.x.y.lora_B.weight", &[2, 1], 1.0),
    ];
    let refused = open(&kohya, "").unwrap_err().to_string();
    assert!(refused.contains("two names"), "{refused}");
}

fn write(path: &std::path::Path, tensors: Tensors) {
    let tensors = tensors
        .iter()
        .map(|(name, shape, value)| brisk_store::OutTensor {
            name: name.to_string(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: value.to_le_bytes().repeat(shape.iter().product()).into(),
        });
    let tensors: Vec<_> = tensors.collect();
    brisk_store::write_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn a_strength_that_nothing_says_is_told() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let notes = |name: &str| Lora::open(&at(name)).unwrap().notes().join("\n");
    write(&at("adapter_model.safetensors"), &[DOWN, UP]);
    write(&at("other.safetensors"), &[DOWN, UP]);
    write(&at("own.safetensors"), &[DOWN, UP, ("x.alpha", &[1], 2.0)]);
    write(&at("empty.safetensors"), &[]);
    assert!(notes("adapter_model.safetensors").contains("no adapter_config.json beside it"));
    assert_eq!(notes("other.safetensors"), "");
    std::fs::write(at("adapter_config.json"), br#"{"lora_alpha": 8}"#).unwrap();
    assert_eq!(notes("adapter_model.safetensors"), "");
    let told = notes("other.safetensors");
    assert!(told.contains("adapter_config.json is not read"), "{told}");
    assert_eq!(notes("own.safetensors"), "");
    let refused = Lora::open(&at("empty.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("empty.safetensors holds no tensors"),
        "{refused}"
    );
}
