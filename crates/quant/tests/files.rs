//! Containers: what is read from them, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_quant::file::LayerKind;
use brisk_quant::integer::Integers;
use brisk_quant::lite::LiteConfig;
use brisk_quant::record::Naming;
use brisk_quant::{Awq, Branch, Codes, HalfType, NunchakuFile, Record};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, safetensors_bytes, write_safetensors};
use serde_json::json;

fn noise(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.4987;
    (0..count).map(|i| HalfType::Bf16.round(value(i))).collect()
}

/// A layer of 128 outputs and 128 inputs.
fn record(seed: usize) -> Record {
    let (size, rank) = (128, 16);
    let weight = noise(size * size, seed);
    let smooth = noise(size, seed + 1);
    let held = |v: &f32| HalfType::Bf16.round(1.0 + v);
    Record {
        outputs: size,
        inputs: size,
        half: HalfType::Bf16,
        codes: Codes::Int4(Integers::round(&weight, size, 64, 7.0, HalfType::Bf16)),
        smooth: smooth.iter().map(held).collect(),
        smooth_orig: None,
        bias: Some(noise(size, seed + 2)),
        branch: Some(Branch {
            rank,
            down: noise(rank * size, seed + 3),
            up: noise(size * rank, seed + 4),
        }),
    }
}

/// Two quantized layers, and a plain one.
fn tensors() -> Vec<OutTensor<'static>> {
    let mut tensors = record(1).tensors("blocks.0.first", Naming::First);
    tensors.extend(record(11).tensors("blocks.0.second", Naming::First));
    tensors.push(OutTensor {
        name: "proj_out.weight".to_owned(),
        dtype: Dtype::BF16,
        shape: vec![8, 128],
        data: HalfType::Bf16.bytes(&noise(8 * 128, 1)).into(),
    });
    tensors
}

fn open(tensors: &[OutTensor], metadata: BTreeMap<String, String>) -> Result<NunchakuFile, String> {
    let bytes = safetensors_bytes(tensors, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::from_bytes(bytes, "made").unwrap();
    NunchakuFile::new(Arc::new(file), metadata, "made".to_owned()).map_err(|e| e.to_string())
}

#[test]
fn a_folder_of_two_files_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let (blocks, rest): (Vec<_>, Vec<_>) = tensors()
        .into_iter()
        .partition(|t| t.name.starts_with("blocks."));
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
            .contains("no quantized layers")
    );
}

#[test]
fn diffusers_configuration_says_which_layers_are_quantized() {
    let path = "blocks.0.attn2.to_q";
    let mut tensors = record(3).tensors(path, Naming::Second);
    let awq = Awq::round(&noise(96 * 64, 1), 64, None, HalfType::Bf16);
    tensors.extend(awq.tensors("time_embed.linear"));
    let file = open(&tensors, BTreeMap::new()).unwrap();
    let kinds = [
        (path, LayerKind::W4A4),
        ("time_embed.linear", LayerKind::W4A16),
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
}
