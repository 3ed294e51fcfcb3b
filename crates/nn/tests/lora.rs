//! Adapters of every naming on the weights that they name.

use brisk_nn::{Init, Lora, LoraFile, Tensor, Weights, WeightsBuilder};
use brisk_store::{Dtype, MemorySource, TensorSource};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

type Tensors<'a> = &'a [(&'a str, &'a [usize], Vec<f32>)];

fn source(tensors: Tensors) -> Arc<dyn TensorSource> {
    let tensors = tensors.iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.to_string(), Dtype::F32, shape.to_vec(), bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).unwrap())
}

fn plain() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn open(tensors: Tensors) -> Arc<Lora> {
    Arc::new(Lora::new(source(tensors), &plain(), None).unwrap())
}

fn refused(tensors: Tensors) -> String {
    let refused = Lora::new(source(tensors), &plain(), None).unwrap_err();
    refused.to_string()
}

/// A model of two layers: `x.0` `[2, 3]` of ones, with a bias of zeros, and `y` `[1, 2]` of zeros.
fn model() -> Arc<dyn TensorSource> {
    source(&[
        ("x.0.weight", &[2, 3], vec![1.0; 6]),
        ("x.0.bias", &[2], vec![0.0; 2]),
        ("y.weight", &[1, 2], vec![0.0; 2]),
    ])
}

/// Weight and bias of `x.0`.
fn adapted(weights: &Weights) -> brisk_nn::Result<(Vec<Vec<f32>>, Vec<f32>)> {
    let layer = weights.pp("x").pp(0);
    let weight = layer.get("weight", &[2, 3], Init::Zeros)?;
    let bias = layer.get("bias", &[2], Init::Zeros)?;
    weights.pp("y").get("weight", &[1, 2], Init::Zeros)?;
    weights.finish(&[])?;
    Ok((weight.to_vec2()?, bias.to_vec1()?))
}

fn with(loras: &[(&Arc<Lora>, f32)]) -> brisk_nn::Result<(Vec<Vec<f32>>, Vec<f32>)> {
    let start = WeightsBuilder::from_source(model());
    let builder = loras.iter().fold(start, |builder, (lora, scale)| {
        builder.lora((*lora).clone(), *scale)
    });
    adapted(&builder.build()?)
}

const DOWN: [f32; 3] = [1.0, 2.0, 3.0];
const UP: [f32; 2] = [1.0, -1.0];

#[test]
fn every_naming_is_read() {
    let names = [
        (
            "transformer.x.0.lora_A.weight",
            "transformer.x.0.lora_B.weight",
        ),
        (
            "base_model.model.x.0.lora_A.weight",
            "base_model.model.x.0.lora_B.weight",
        ),
        (
            "base_model.model.x.0.lora_A.default.weight",
            "base_model.model.x.0.lora_B.default.weight",
        ),
        (
            "diffusion_model.x.0.lora_A.weight",
            "diffusion_model.x.0.lora_B.weight",
        ),
        (
            "lora_unet_x_0.lora_down.weight",
            "lora_unet_x_0.lora_up.weight",
        ),
        ("unet.x.0.lora.down.weight", "unet.x.0.lora.up.weight"),
        ("x.0.lora_A.weight", "x.0.lora_B.weight"),
    ];
    for (down, up) in names {
        let lora = open(&[(down, &[1, 3], DOWN.to_vec()), (up, &[2, 1], UP.to_vec())]);
        let (weight, _) = with(&[(&lora, 0.5)]).unwrap();
        assert_eq!(weight, [[1.5, 2.0, 2.5], [0.5, 0.0, -0.5]], "{down}");
    }
}

fn pair() -> Vec<(&'static str, &'static [usize], Vec<f32>)> {
    vec![
        ("transformer.x.0.lora_A.weight", &[1, 3], DOWN.to_vec()),
        ("transformer.x.0.lora_B.weight", &[2, 1], UP.to_vec()),
    ]
}

#[test]
fn alpha_comes_from_tensor_configuration_or_metadata() {
    let strength = |tensors: Tensors, metadata: &str, config: Option<&str>| {
        let mut table = plain();
        if !metadata.is_empty() {
            table.insert("lora_adapter_metadata".to_owned(), metadata.to_owned());
        }
        let config = config.map(|text| (text.as_bytes(), "adapter_config.json"));
        let lora = Lora::new(source(tensors), &table, config).unwrap();
        let (weight, _) = with(&[(&Arc::new(lora), 1.0)]).unwrap();
        weight[0][0] - 1.0
    };
    let metadata = r#"{"transformer.r": 1, "transformer.lora_alpha": 8.0}"#;
    let patterns = r#"{"transformer.lora_alpha": 8.0, "transformer.alpha_pattern": {"x.0": 3}}"#;
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 4}"#;
    assert_eq!(strength(&pair(), "", None), 1.0);
    assert_eq!(strength(&pair(), metadata, None), 8.0);
    assert_eq!(strength(&pair(), patterns, None), 3.0);
    assert_eq!(strength(&pair(), metadata, Some(config)), 4.0);
    let mut own = pair();
    own.push(("transformer.x.0.alpha", &[], vec![2.0]));
    assert_eq!(strength(&own, metadata, Some(config)), 2.0);

    // Divided by the rank, or by its root.
    let wide: Tensors = &[
        (
            "x.0.lora_A.weight",
            &[4, 3],
            [DOWN, [0.0; 3], [0.0; 3], [0.0; 3]].concat(),
        ),
        (
            "x.0.lora_B.weight",
            &[2, 4],
            vec![1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0],
        ),
    ];
    assert_eq!(strength(wide, "", Some(r#"{"lora_alpha": 8}"#)), 2.0);
    let root = r#"{"lora_alpha": 8, "use_rslora": true}"#;
    assert_eq!(strength(wide, "", Some(root)), 4.0);
}

#[test]
fn biases_are_added_and_magnitudes_set_the_length_of_rows() {
    let mut tensors = pair();
    tensors.push(("transformer.x.0.lora_B.bias", &[2], vec![10.0, 20.0]));
    tensors.push(("transformer.x.0.alpha", &[1], vec![2.0]));
    let (_, bias) = with(&[(&open(&tensors), 0.5)]).unwrap();
    assert_eq!(bias, [10.0, 20.0]);

    // Rows become [2, 3, 4] and [0, −1, −2], stretched to lengths 2 and 3.
    let mut tensors = pair();
    tensors.push((
        "transformer.x.0.lora_magnitude_vector",
        &[2],
        vec![2.0, 3.0],
    ));
    let (weight, _) = with(&[(&open(&tensors), 1.0)]).unwrap();
    let wanted = [
        [2.0, 3.0, 4.0].map(|v: f32| v * 2.0 / 29f32.sqrt()),
        [0.0, -1.0, -2.0].map(|v: f32| v * 3.0 / 5f32.sqrt()),
    ];
    for (found, wanted) in weight.iter().flatten().zip(wanted.iter().flatten()) {
        assert!((found - wanted).abs() < 1e-5, "{weight:?}");
    }
}

#[test]
fn several_add_up_in_any_order() {
    let irrational = |step: f32| {
        let down: Vec<f32> = (0..3).map(|i| (i as f32 * step).sin()).collect();
        open(&[
            ("x.0.lora_A.weight", &[1, 3], down),
            ("x.0.lora_B.weight", &[2, 1], vec![step.cos(), step.sqrt()]),
        ])
    };
    let loras = [irrational(0.7), irrational(1.9), irrational(2.3)];
    let [a, b, c] = [(&loras[0], 0.3), (&loras[1], -1.2), (&loras[2], 0.9)];
    let found = with(&[a, b, c]).unwrap();
    assert_eq!(with(&[c, a, b]).unwrap(), found);
    assert_eq!(with(&[b, c, a]).unwrap(), found);
    let sum: f32 = [a, b, c]
        .map(|one| with(&[one]).unwrap().0[1][2] - 1.0)
        .iter()
        .sum();
    assert!((found.0[1][2] - 1.0 - sum).abs() < 1e-6);
}

#[test]
fn other_models_and_broken_files_are_refused_by_name() {
    let other = open(&[
        ("transformer.z.lora_A.weight", &[1, 3], DOWN.to_vec()),
        ("transformer.z.lora_B.weight", &[2, 1], UP.to_vec()),
    ]);
    let error = with(&[(&other, 1.0)]).unwrap_err().to_string();
    assert!(error.contains("transformer.z"), "{error}");

    let wide = open(&[
        ("x.0.lora_A.weight", &[1, 4], vec![1.0; 4]),
        ("x.0.lora_B.weight", &[2, 1], UP.to_vec()),
    ]);
    let error = with(&[(&wide, 1.0)]).unwrap_err().to_string();
    assert!(
        error.contains("[1, 4]") && error.contains("[1, 3]"),
        "{error}"
    );

    let mut biased = vec![
        ("y.lora_A.weight", &[1, 2][..], vec![1.0; 2]),
        ("y.lora_B.weight", &[1, 1], vec![1.0]),
    ];
    biased.push(("y.lora_B.bias", &[1], vec![1.0]));
    let error = with(&[(&open(&biased), 1.0)]).unwrap_err().to_string();
    assert!(error.contains("bias") && error.contains('y'), "{error}");

    assert!(with(&[(&open(&pair()), f32::NAN)]).is_err());
    let mut broken = pair();
    broken[0].2[1] = f32::INFINITY;
    let error = with(&[(&open(&broken), 1.0)]).unwrap_err().to_string();
    assert!(
        error.contains("lora_A") && error.contains("infinity"),
        "{error}"
    );

    let error = refused(&pair()[..1]);
    assert!(
        error.contains("half") && error.contains("transformer.x.0"),
        "{error}"
    );
    let mut ranks = pair();
    ranks[1].1 = &[1, 2];
    let error = refused(&ranks);
    assert!(
        error.contains("[1, 3]") && error.contains("[1, 2]"),
        "{error}"
    );
    let twice = [
        pair(),
        vec![
            ("x.0.lora_A.weight", &[1, 3][..], DOWN.to_vec()),
            ("x.0.lora_B.weight", &[2, 1], UP.to_vec()),
        ],
    ];
    assert!(refused(&twice.concat()).contains("two names"));

    // A name with underscores that two layers of the model have.
    let model = source(&[
        ("a.b_c.weight", &[1, 1], vec![0.0]),
        ("a_b.c.weight", &[1, 1], vec![0.0]),
    ]);
    let kohya = open(&[
        ("lora_unet_a_b_c.lora_down.weight", &[1, 1], vec![1.0]),
        ("lora_unet_a_b_c.lora_up.weight", &[1, 1], vec![1.0]),
    ]);
    let weights = WeightsBuilder::from_source(model)
        .lora(kohya, 1.0)
        .build()
        .unwrap();
    weights.get("a.b_c.weight", &[1, 1], Init::Zeros).unwrap();
    let error = weights
        .get("a_b.c.weight", &[1, 1], Init::Zeros)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.b_c") && error.contains("a_b.c"),
        "{error}"
    );
}

/// Files on disk, in a folder that goes with it.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(path: &Path, prefix: &str) {
    let tensors = [("lora_A", [1, 3], &DOWN[..]), ("lora_B", [2, 1], &UP[..])];
    let tensors = tensors.map(|(part, shape, values)| brisk_store::OutTensor {
        name: format!("{prefix}x.0.{part}.weight"),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        data: values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    });
    brisk_store::write_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn files_and_folders_are_opened_with_what_lies_beside_them() {
    let place = folder();
    let at = |name: &str| place.path().join(name);
    std::fs::write(at("adapter_config.json"), br#"{"lora_alpha": 8}"#).unwrap();
    let strength = |path: &Path| {
        let lora = Arc::new(Lora::open(path).unwrap());
        with(&[(&lora, 1.0)]).unwrap().0[0][0] - 1.0
    };
    write(&at("adapter_model.safetensors"), "x.");
    std::fs::remove_file(at("adapter_model.safetensors")).unwrap();

    write(&at("own.safetensors"), "base_model.model.");
    assert_eq!(strength(&at("own.safetensors")), 8.0);
    assert_eq!(strength(place.path()), 8.0, "the folder's only file");
    write(&at("comfy.safetensors"), "diffusion_model.");
    assert_eq!(
        strength(&at("comfy.safetensors")),
        1.0,
        "the configuration is PEFT's"
    );
    let error = Lora::open(place.path()).unwrap_err().to_string();
    assert!(error.contains("2 .safetensors"), "{error}");
    write(&at("adapter_model.safetensors"), "");
    assert_eq!(strength(place.path()), 8.0);
    write(&at("pytorch_lora_weights.safetensors"), "transformer.");
    let error = Lora::open(place.path()).unwrap_err().to_string();
    assert!(error.contains("both"), "{error}");
    assert!(Lora::open(&at("absent")).is_err());
}

#[test]
fn a_scale_may_follow_the_file() {
    let parsed = |text: &str| {
        let file = LoraFile::parse(text).unwrap();
        (file.path.to_str().unwrap().to_owned(), file.scale)
    };
    assert_eq!(parsed("a.safetensors"), ("a.safetensors".to_owned(), 1.0));
    assert_eq!(
        parsed("a.safetensors:0.5"),
        ("a.safetensors".to_owned(), 0.5)
    );
    assert_eq!(parsed("a:b:-2"), ("a:b".to_owned(), -2.0));
    assert_eq!(parsed("C:\\a"), ("C:\\a".to_owned(), 1.0));
    assert!(LoraFile::parse(":1").is_err() && LoraFile::parse("a:inf").is_err());
    let place = folder();
    let named = place.path().join("a:2");
    std::fs::write(&named, b"").unwrap();
    assert_eq!(parsed(named.to_str().unwrap()).1, 1.0);
}

#[test]
fn an_adapted_weight_is_read_in_full_precision() {
    let half: Vec<u8> = [1.0f32; 6]
        .iter()
        .flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes())
        .collect();
    let file = vec![("x.0.weight".to_owned(), Dtype::BF16, vec![2, 3], half)];
    let file: Arc<dyn TensorSource> = Arc::new(MemorySource::new(file).unwrap());
    let read = |weights: Weights| -> Tensor {
        weights
            .get_stored("x.0.weight", &[2, 3], Init::Zeros)
            .unwrap()
    };
    let stored = read(Weights::from_source(file.clone()));
    assert_eq!(stored.dtype(), brisk_nn::DType::BF16);
    let lora = open(&pair());
    let weights = WeightsBuilder::from_source(file).lora(lora, 1e-3).build();
    let changed = read(weights.unwrap()).to_vec2::<f32>().unwrap();
    assert!((changed[0][0] - 1.001).abs() < 1e-6);
}
