//! Containers: what is read from them, what is refused, and SANA's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_quant::file::{LayerKind, LiteConfig, metadata};
use brisk_quant::integer::Integers;
use brisk_quant::record::Naming;
use brisk_quant::sana::{Layer, Part, SanaFile, SanaShape, part_tensors, plain_to_file};
use brisk_quant::{Awq, Branch, Codes, HalfType, NunchakuFile, Record};
use brisk_store::{
    Dtype, MemorySource, OutTensor, SafetensorsFile, TensorSource, safetensors_bytes,
    write_safetensors,
};
use serde_json::json;

/// A small model with every kind of padding: width and hidden are no multiples of 128.
const SHAPE: SanaShape = SanaShape {
    layers: 1,
    width: 160,
    head_dim: 32,
    cross_width: 96,
    hidden: 400,
};

fn noise(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.4987;
    (0..count).map(|i| HalfType::Bf16.round(value(i))).collect()
}

/// A layer in plain order.
fn plain(part: Part, seed: usize) -> Record {
    let (outputs, inputs) = part.size(&SHAPE);
    let padded = inputs.next_multiple_of(64);
    let rank = 16;
    let mut record = Record {
        outputs,
        inputs: padded,
        half: HalfType::Bf16,
        codes: Codes::Int4(Integers::round(
            &noise(outputs * padded, seed),
            padded,
            64,
            7.0,
            HalfType::Bf16,
        )),
        smooth: noise(padded, seed + 1)
            .iter()
            .map(|v| HalfType::Bf16.round(1.0 + v))
            .collect(),
        smooth_orig: None,
        bias: Some(noise(outputs, seed + 2)),
        branch: Some(Branch {
            rank,
            down: noise(rank * padded, seed + 3),
            up: noise(outputs * rank, seed + 4),
        }),
    };
    // What lies beyond the inputs is padding.
    let all: Vec<_> = (0..outputs).map(Some).collect();
    if let Codes::Int4(integers) = &mut record.codes {
        for row in integers.codes.chunks_exact_mut(padded) {
            row[inputs..].fill(0);
        }
    }
    record.smooth[inputs..].fill(1.0);
    record.arrange(&all, padded)
}

/// 16-bit tensors under plain names.
fn rest() -> MemorySource {
    let tensor = |name: &str, shape: Vec<usize>, seed| {
        let values = noise(shape.iter().product(), seed);
        (
            name.to_owned(),
            Dtype::BF16,
            shape,
            HalfType::Bf16.bytes(&values),
        )
    };
    let SanaShape {
        width,
        cross_width,
        hidden,
        ..
    } = SHAPE;
    let block = "transformer_blocks.0";
    MemorySource::new(vec![
        tensor("proj_out.weight", vec![8, width], 1),
        tensor(&format!("{block}.scale_shift_table"), vec![6, width], 2),
        tensor(&format!("{block}.attn1.norm_q.weight"), vec![width], 3),
        tensor(
            &format!("{block}.attn2.to_k.weight"),
            vec![cross_width, width],
            4,
        ),
        tensor(
            &format!("{block}.attn2.to_v.weight"),
            vec![cross_width, width],
            5,
        ),
        tensor(&format!("{block}.attn2.to_k.bias"), vec![cross_width], 6),
        tensor(&format!("{block}.attn2.to_v.bias"), vec![cross_width], 7),
        tensor(
            &format!("{block}.ff.conv_depth.weight"),
            vec![2 * hidden, 1, 3, 3],
            8,
        ),
        tensor(&format!("{block}.ff.conv_depth.bias"), vec![2 * hidden], 9),
    ])
    .unwrap()
}

fn tensors() -> Vec<OutTensor<'static>> {
    let mut tensors = plain_to_file(&rest(), &SHAPE, |_| false).unwrap();
    for (i, part) in Part::ALL.into_iter().enumerate() {
        tensors.extend(part_tensors(0, part, &SHAPE, &plain(part, 10 * i)));
    }
    tensors
}

fn open(tensors: &[OutTensor], metadata: BTreeMap<String, String>) -> Result<NunchakuFile, String> {
    let bytes = safetensors_bytes(tensors, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::from_bytes(bytes, "made").unwrap();
    NunchakuFile::new(Arc::new(file), metadata, "made".to_owned()).map_err(|e| e.to_string())
}

#[test]
fn a_sana_file_gives_back_every_layer_and_tensor() {
    let file = open(
        &tensors(),
        metadata(&json!({}), "NunchakuSanaTransformer2DModel", 16),
    )
    .unwrap();
    assert_eq!(file.layers().len(), 6);
    file.check().unwrap();
    let sana = SanaFile::new(file, SHAPE).unwrap();
    for (i, part) in Part::ALL.into_iter().enumerate() {
        let want = plain(part, 10 * i);
        let (outputs, inputs) = part.size(&SHAPE);
        let names = part.plain_names();
        let each = outputs / names.len();
        for (place, name) in names.iter().enumerate() {
            let path = format!("transformer_blocks.0.{name}");
            let Some(Layer::Svd(found)) = sana.layer(&path, inputs, each).unwrap() else {
                panic!("{path}")
            };
            let rows: Vec<_> = (place * each..(place + 1) * each).map(Some).collect();
            assert_eq!(found, want.arrange(&rows, want.inputs), "{path}");
        }
    }
    let (found, want) = (sana.plain(), rest());
    assert_eq!(found.names(), want.names());
    for name in want.names() {
        assert_eq!(
            found.view(&name).unwrap(),
            want.view(&name).unwrap(),
            "{name}"
        );
    }
    assert!(sana.layer("proj_out", 160, 8).unwrap().is_none());
}

#[test]
fn head_and_gate_channels_stand_where_the_engine_wants_them() {
    let file = open(&tensors(), BTreeMap::new()).unwrap();
    let qkv = file.record("transformer_blocks.0.attn.qkv_proj").unwrap();
    assert_eq!((qkv.outputs, qkv.inputs), (3 * 256, 256));
    let want = plain(Part::Qkv, 0);
    let bias = |record: &Record, row: usize| record.bias.as_ref().unwrap()[row];
    // Head 1: 32 rows of keys, then 32 of values, after 256 rows of queries.
    for lane in 0..32 {
        assert_eq!(bias(&qkv, lane + 32), bias(&want, lane + 32));
        assert_eq!(bias(&qkv, 256 + 64 + lane), bias(&want, 160 + 32 + lane));
        assert_eq!(bias(&qkv, 256 + 96 + lane), bias(&want, 320 + 32 + lane));
    }
    let inverted = file
        .record("transformer_blocks.0.ff.inverted_conv")
        .unwrap();
    assert_eq!(inverted.outputs, 896);
    let want = plain(Part::Inverted, 40);
    assert_eq!(bias(&inverted, 2 * 7), bias(&want, 7));
    assert_eq!(bias(&inverted, 2 * 7 + 1), bias(&want, 407));
    let (_, shape) = file
        .source()
        .info("transformer_blocks.0.ff.depth_conv.weight")
        .unwrap();
    assert_eq!(shape, [896, 3, 3, 1]);
}

#[test]
fn a_folder_of_two_files_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let (blocks, rest): (Vec<_>, Vec<_>) = tensors()
        .into_iter()
        .partition(|t| t.name.starts_with("transformer_blocks."));
    let write = |name: &str, tensors: &[OutTensor]| {
        write_safetensors(&folder.path().join(name), tensors, &none).unwrap();
    };
    write("transformer_blocks.safetensors", &blocks);
    let error = NunchakuFile::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("unquantized_layers.safetensors"), "{error}");
    write("unquantized_layers.safetensors", &rest);
    let file = NunchakuFile::open(folder.path()).unwrap();
    assert_eq!(file.source().names().len(), tensors().len());
    file.check().unwrap();
    write(
        "unquantized_layers.safetensors",
        &[&rest[..], &blocks[..1]].concat(),
    );
    let error = NunchakuFile::open(folder.path()).err().unwrap().to_string();
    assert!(
        error.contains(&blocks[0].name) && error.contains("another file"),
        "{error}"
    );
}

#[test]
fn files_that_contradict_themselves_or_the_model_are_refused() {
    let claims = |method: &str, group: usize, rank: usize, dtype: &str| {
        let weight = json!({"dtype": dtype, "group_size": group});
        let value = json!({"method": method, "weight": weight, "rank": rank});
        let metadata = BTreeMap::from([("quantization_config".to_owned(), value.to_string())]);
        open(&tensors(), metadata).err().unwrap_or_default()
    };
    assert_eq!(claims("svdquant", 64, 16, "int4"), "");
    assert!(claims("awq", 64, 16, "int4").contains("method"));
    assert!(claims("svdquant", 128, 16, "int4").contains("group_size is 128"));
    assert!(claims("svdquant", 64, 32, "int4").contains("rank is 32"));
    assert!(claims("svdquant", 64, 16, "fp4_e2m1_all").contains("dtype"));
    let broken = BTreeMap::from([("quantization_config".to_owned(), "{".to_owned())]);
    assert!(
        open(&tensors(), broken)
            .err()
            .unwrap()
            .contains("quantization_config")
    );
    let rest: Vec<_> = tensors()
        .into_iter()
        .filter(|t| !t.name.ends_with("qweight"))
        .collect();
    assert!(
        open(&rest, BTreeMap::new())
            .err()
            .unwrap()
            .contains("no quantised layers")
    );

    let class = BTreeMap::from([(
        "model_class".to_owned(),
        "NunchakuFluxTransformer2dModel".to_owned(),
    )]);
    let file = open(&tensors(), class).unwrap();
    let error = SanaFile::new(file, SHAPE).err().unwrap().to_string();
    assert!(
        error.contains("Flux") && error.contains("another model"),
        "{error}"
    );

    let wider = SanaShape {
        width: 320,
        ..SHAPE
    };
    let sana = SanaFile::new(open(&tensors(), BTreeMap::new()).unwrap(), wider).unwrap();
    let error = sana
        .layer("transformer_blocks.0.attn1.to_q", 320, 320)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("attn.qkv_proj.qweight") && error.contains("another model"),
        "{error}"
    );

    let deeper = SanaShape {
        hidden: 512,
        ..SHAPE
    };
    let error = SanaFile::new(open(&tensors(), BTreeMap::new()).unwrap(), deeper)
        .err()
        .unwrap();
    assert!(error.to_string().contains("ff.depth_conv"), "{error}");
}

#[test]
fn diffusers_conversions_keep_the_models_names() {
    let record = plain(Part::CrossQuery, 3);
    let rows: Vec<_> = (0..record.outputs)
        .map(Some)
        .chain(std::iter::repeat_n(None, 32))
        .collect();
    let path = "transformer_blocks.0.attn2.to_q";
    let mut tensors = record.arrange(&rows, 256).tensors(path, Naming::Second);
    let awq = Awq::round(&noise(96 * 64, 1), 64, None, HalfType::Bf16);
    tensors.extend(awq.tensors("time_embed.linear"));
    let file = open(&tensors, BTreeMap::new()).unwrap();
    let kinds = [
        ("time_embed.linear", LayerKind::W4A16),
        (path, LayerKind::W4A4),
    ];
    assert_eq!(
        file.layers(),
        kinds.map(|(name, kind)| (name.to_owned(), kind))
    );
    let config = |w4a4: &[&str], group: u64| {
        json!({"quantization_config": {
            "quant_method": "nunchaku_lite",
            "svdq_w4a4": {"precision": "int4", "group_size": group, "rank": 16, "targets": w4a4},
            "awq_w4a16": {"precision": "int4", "group_size": 64, "targets": ["time_embed.linear"]},
        }})
    };
    let lite = LiteConfig::from_config(&config(&[path], 64), "config.json")
        .unwrap()
        .unwrap();
    assert_eq!(lite.rank, 16);
    lite.check(&file).unwrap();
    for targets in [&[][..], &[path, "proj_out"][..]] {
        let lite = LiteConfig::from_config(&config(targets, 64), "config.json")
            .unwrap()
            .unwrap();
        assert!(lite.check(&file).is_err());
    }
    let error = LiteConfig::from_config(&config(&[path], 32), "config.json").unwrap_err();
    assert!(error.to_string().contains("group_size"), "{error}");
    assert_eq!(
        LiteConfig::from_config(&json!({}), "config.json").unwrap(),
        None
    );

    let sana = SanaFile::new(file, SHAPE).unwrap();
    let Some(Layer::Svd(found)) = sana.layer(path, 160, 96).unwrap() else {
        panic!()
    };
    assert_eq!(found, record);
    assert!(matches!(
        sana.layer("time_embed.linear", 64, 96).unwrap(),
        Some(Layer::Awq(_))
    ));
    let error = sana.layer(path, 160, 300).err().unwrap().to_string();
    assert!(error.contains("another model"), "{error}");
}

#[test]
fn the_plain_weight_of_a_layer_is_what_it_stands_for() {
    let sana = SanaFile::new(open(&tensors(), BTreeMap::new()).unwrap(), SHAPE).unwrap();
    let found = sana.plain_layer("transformer_blocks.0.attn1.to_v").unwrap();
    let want = plain(Part::Qkv, 0);
    let weight = want.weight();
    let cut: Vec<f32> = weight
        .chunks_exact(want.inputs)
        .skip(320)
        .flat_map(|row| row[..160].to_vec())
        .collect();
    assert_eq!(found[0].0, "transformer_blocks.0.attn1.to_v.weight");
    assert_eq!(found[0].1, [160, 160]);
    let close = found[0]
        .2
        .iter()
        .zip(&cut)
        .all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close);
    assert_eq!(found[1].2, want.bias.unwrap()[320..]);
    let point = sana
        .plain_layer("transformer_blocks.0.ff.conv_point")
        .unwrap();
    assert_eq!(point[0].1, [160, 400, 1, 1]);
}

#[test]
fn bytes_changed_at_random_are_an_error_or_a_file_and_never_a_panic() {
    let whole = safetensors_bytes(
        &tensors(),
        &metadata(&json!({}), "NunchakuSanaTransformer2DModel", 16),
    )
    .unwrap();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let mut state = 12_345u64;
    let mut next = |bound: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % bound
    };
    let mut opened = 0;
    for round in 0..1500 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round % 4 {
            // Mostly the header: sizes, types, names.
            let place = if next(4) > 0 {
                8 + next(header)
            } else {
                next(bytes.len())
            };
            let digit = b"0123456789[]\",:FIB8_".as_slice();
            bytes[place] = digit[next(digit.len())];
        }
        let Ok(file) = SafetensorsFile::from_bytes(bytes, "mutated") else {
            continue;
        };
        let metadata = file.metadata().clone();
        let Ok(file) = NunchakuFile::new(Arc::new(file), metadata, "mutated".to_owned()) else {
            continue;
        };
        opened += 1;
        let _ = file.check();
        if let Ok(sana) = SanaFile::new(file, SHAPE) {
            let _ = sana.plain_layer("transformer_blocks.0.attn1.to_k");
            let _ = sana.plain_layer("transformer_blocks.0.ff.conv_point");
        }
    }
    assert!(opened > 20, "{opened}");
}
