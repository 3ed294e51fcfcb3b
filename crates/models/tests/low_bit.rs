//! SANA's layers in nunchaku's files and diffusers', there and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_models::sana::SanaLayout;
use brisk_quant::file::metadata;
use brisk_quant::integer::Integers;
use brisk_quant::record::Naming;
use brisk_quant::{
    Awq, Branch, Codes, HalfType, LayerGroup, LowBitLayout, LowBitModel, NunchakuFile, Record,
    plain_to_file,
};
use brisk_store::{
    Dtype, MemorySource, OutTensor, SafetensorsFile, TensorSource, safetensors_bytes,
};
use serde_json::json;

/// A small model with every kind of padding: width and hidden are no multiples of 128.
const SHAPE: SanaLayout = SanaLayout {
    layers: 1,
    width: 160,
    head_dim: 32,
    cross_width: 96,
    hidden: 400,
};

/// Places among the groups of a block.
const QKV: usize = 0;
const CROSS_QUERY: usize = 2;
const INVERTED: usize = 4;

fn group(index: usize) -> LayerGroup {
    SHAPE.groups().swap_remove(index)
}

fn noise(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.4987;
    (0..count).map(|i| HalfType::Bf16.round(value(i))).collect()
}

/// A layer in plain order.
fn plain(index: usize, seed: usize) -> Record {
    let group = group(index);
    let (outputs, inputs) = (group.outputs(), group.inputs);
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
    let SanaLayout {
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
    let rest = rest();
    let tensors = plain_to_file(&rest, &SHAPE, |_| false).unwrap();
    let owned = tensors.into_iter().map(|tensor| OutTensor {
        data: tensor.data.into_owned().into(),
        ..tensor
    });
    let mut tensors: Vec<OutTensor> = owned.collect();
    for (i, group) in SHAPE.groups().iter().enumerate() {
        tensors.extend(group.tensors(&plain(i, 10 * i)));
    }
    tensors
}

fn model(file: NunchakuFile, layout: SanaLayout) -> Result<LowBitModel, String> {
    LowBitModel::new(file, Box::new(layout)).map_err(|e| e.to_string())
}

fn open(tensors: &[OutTensor], metadata: BTreeMap<String, String>) -> Result<NunchakuFile, String> {
    let bytes = safetensors_bytes(tensors, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::from_bytes(bytes, "made").unwrap();
    NunchakuFile::new(Arc::new(file), metadata, "made".to_owned()).map_err(|e| e.to_string())
}

#[test]
fn a_file_gives_back_every_layer_and_tensor() {
    let file = open(
        &tensors(),
        metadata(&json!({}), "NunchakuSanaTransformer2DModel", 16),
    )
    .unwrap();
    assert_eq!(file.layers().len(), 6);
    file.check().unwrap();
    let sana = model(file, SHAPE).unwrap();
    let mut names = Vec::new();
    for (i, group) in SHAPE.groups().iter().enumerate() {
        let (layers, outputs): (Vec<_>, Vec<_>) = group.layers.iter().cloned().unzip();
        let found = sana
            .weight(&layers, group.inputs, &outputs)
            .unwrap()
            .unwrap();
        let want = plain(i, 10 * i).into_weight(outputs.clone(), group.inputs);
        assert_eq!(found, want.unwrap(), "{}", group.file);
        assert!(found.fits());
        if let [first, _, ..] = &layers[..] {
            // Layers that were quantized together stay together.
            let first = [first.clone()];
            let alone = sana.weight(&first, group.inputs, &outputs[..1]);
            assert!(alone.unwrap().is_none());
        }
        names.extend(layers);
    }
    names.sort();
    let mut found = sana.layers();
    found.sort();
    assert_eq!(found, names);
    let (found, want) = (sana.plain(), rest());
    assert_eq!(found.names(), want.names());
    for name in want.names() {
        assert_eq!(
            found.view(&name).unwrap(),
            want.view(&name).unwrap(),
            "{name}"
        );
        assert_eq!(found.info(&name), want.info(&name), "{name}");
    }
    let none = sana.weight(&["proj_out".to_owned()], 160, &[8]);
    assert!(none.unwrap().is_none());
}

#[test]
fn head_and_gate_channels_stand_where_the_engine_wants_them() {
    let file = open(&tensors(), BTreeMap::new()).unwrap();
    let qkv = file.record("transformer_blocks.0.attn.qkv_proj").unwrap();
    assert_eq!((qkv.outputs, qkv.inputs), (3 * 256, 256));
    let want = plain(QKV, 0);
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
    let want = plain(INVERTED, 40);
    assert_eq!(bias(&inverted, 2 * 7), bias(&want, 7));
    assert_eq!(bias(&inverted, 2 * 7 + 1), bias(&want, 407));
    let (_, shape) = file
        .source()
        .info("transformer_blocks.0.ff.depth_conv.weight")
        .unwrap();
    assert_eq!(shape, [896, 3, 3, 1]);
}

#[test]
fn files_of_other_models_are_refused() {
    let class = BTreeMap::from([(
        "model_class".to_owned(),
        "NunchakuFluxTransformer2dModel".to_owned(),
    )]);
    let file = open(&tensors(), class).unwrap();
    let error = model(file, SHAPE).err().unwrap();
    assert!(
        error.contains("Flux") && error.contains("another model"),
        "{error}"
    );

    let wider = SanaLayout {
        width: 320,
        ..SHAPE
    };
    let sana = model(open(&tensors(), BTreeMap::new()).unwrap(), wider).unwrap();
    let names = ["to_q", "to_k", "to_v"].map(|name| format!("transformer_blocks.0.attn1.{name}"));
    let error = sana.weight(&names, 320, &[320; 3]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("attn.qkv_proj.qweight") && error.contains("another model"),
        "{error}"
    );
    let error = sana.weight(&names, 64, &[320; 3]).unwrap_err();
    assert!(error.to_string().contains("asks for"), "{error}");

    let deeper = SanaLayout {
        hidden: 512,
        ..SHAPE
    };
    let error = model(open(&tensors(), BTreeMap::new()).unwrap(), deeper).err();
    let error = error.unwrap();
    assert!(error.contains("ff.depth_conv"), "{error}");
}

#[test]
fn diffusers_conversions_keep_the_models_names() {
    let record = plain(CROSS_QUERY, 3);
    let rows: Vec<_> = (0..record.outputs)
        .map(Some)
        .chain(std::iter::repeat_n(None, 32))
        .collect();
    let path = "transformer_blocks.0.attn2.to_q";
    let mut tensors = record.arrange(&rows, 256).tensors(path, Naming::Second);
    let awq = Awq::round(&noise(96 * 64, 1), 64, None, HalfType::Bf16);
    tensors.extend(awq.tensors("time_embed.linear"));
    let file = open(&tensors, BTreeMap::new()).unwrap();
    let sana = model(file, SHAPE).unwrap();
    let found = sana.weight(&[path.to_owned()], 160, &[96]).unwrap();
    assert_eq!(found, record.into_weight(vec![96], 160));
    let time = ["time_embed.linear".to_owned()];
    let found = sana.weight(&time, 64, &[96]).unwrap().unwrap();
    assert!(found.zeros.is_some() && found.branch.is_none());
    let error = sana.weight(&[path.to_owned()], 160, &[300]).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
    let mut names = Vec::new();
    let unpacked = sana.unpack(|(name, ..)| {
        names.push(name);
        Ok::<(), brisk_quant::Error>(())
    });
    unpacked.unwrap();
    let bias = format!("{path}.bias");
    let want = [
        "time_embed.linear.weight".to_owned(),
        format!("{path}.weight"),
        bias,
    ];
    assert_eq!(names, want);
}

#[test]
fn the_plain_weight_of_a_layer_is_what_it_stands_for() {
    let sana = model(open(&tensors(), BTreeMap::new()).unwrap(), SHAPE).unwrap();
    let mut found = BTreeMap::new();
    let unpacked = sana.unpack(|(name, shape, values)| {
        found.insert(name, (shape, values));
        Ok::<(), brisk_quant::Error>(())
    });
    unpacked.unwrap();
    assert_eq!(found.len(), 2 * 8);
    let want = plain(QKV, 0);
    let weight = want.weight();
    let rows = weight.chunks_exact(want.inputs).skip(320);
    let cut: Vec<f32> = rows.flat_map(|row| row[..160].to_vec()).collect();
    let (shape, values) = &found["transformer_blocks.0.attn1.to_v.weight"];
    assert_eq!(*shape, [160, 160]);
    let close = values.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close);
    let (_, bias) = &found["transformer_blocks.0.attn1.to_v.bias"];
    assert_eq!(*bias, want.bias.unwrap()[320..]);
    let (shape, _) = &found["transformer_blocks.0.ff.conv_point.weight"];
    assert_eq!(*shape, [160, 400, 1, 1]);
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
        if let Ok(sana) = model(file, SHAPE) {
            let _ = sana.unpack(|_| Ok::<(), brisk_quant::Error>(()));
            for name in sana.plain().names() {
                let _ = sana.plain().view(&name);
            }
        }
    }
    assert!(opened > 20, "{opened}");
}
