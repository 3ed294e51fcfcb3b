//! The reference packer's output and ours, both directions, bit for bit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use brisk_quant::integer::Integers;
use brisk_quant::layout;
use brisk_quant::nvfp4::Floats;
use brisk_quant::record::Naming;
use brisk_quant::{Awq, Branch, Codes, HalfType, Record};
use brisk_store::{OutTensor, SafetensorsFile, TensorSource, safetensors_bytes};

fn golden() -> SafetensorsFile {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/svdquant/packing.safetensors");
    SafetensorsFile::open(&path).unwrap()
}

fn bytes(file: &SafetensorsFile, name: &str) -> Vec<u8> {
    file.view(name)
        .unwrap()
        .unwrap_or_else(|| panic!("{name}"))
        .data
        .to_vec()
}

fn values(file: &SafetensorsFile, name: &str) -> Vec<f32> {
    file.view(name)
        .unwrap()
        .unwrap_or_else(|| panic!("{name}"))
        .to_f32()
        .unwrap()
}

/// `[rows, columns]` inside `[to_rows, to_columns]` filled with `fill`.
fn pad(values: &[f32], columns: usize, to_rows: usize, to_columns: usize, fill: f32) -> Vec<f32> {
    let mut padded = vec![fill; to_rows * to_columns];
    for (row, values) in values.chunks_exact(columns).enumerate() {
        padded[row * to_columns..row * to_columns + columns].copy_from_slice(values);
    }
    padded
}

#[test]
fn int4_layers_are_packed_as_the_reference_packs_them() {
    let file = golden();
    for (n, k, rank, half) in [
        (256, 256, 32, HalfType::Bf16),
        (128, 384, 16, HalfType::F16),
        (160, 192, 32, HalfType::Bf16),
    ] {
        let case = format!("int4.{n}x{k}");
        let get = |name: &str| values(&file, &format!("{case}.{name}"));
        let (outputs, inputs) = (
            usize::next_multiple_of(n, 128),
            usize::next_multiple_of(k, 128),
        );
        let codes = pad(&get("codes"), k, outputs, inputs, 0.0);
        let record = Record {
            outputs,
            inputs,
            half,
            codes: Codes::Int4(Integers {
                codes: codes.iter().map(|c| *c as i8).collect(),
                scales: pad(&get("scales"), k / 64, outputs, inputs / 64, 1.0),
                group: 64,
            }),
            smooth: pad(&get("smooth"), k, 1, inputs, 1.0),
            smooth_orig: None,
            bias: Some(pad(&get("bias"), n, 1, outputs, 1.0)),
            branch: Some(Branch {
                rank,
                down: pad(&get("down"), k, rank, inputs, 0.0),
                up: pad(&get("up"), rank, outputs, rank, 0.0),
            }),
        };
        let tensors = record.tensors(&format!("{case}.packed"), Naming::First);
        assert_eq!(tensors.len(), 6);
        for tensor in &tensors {
            assert_eq!(tensor.data, bytes(&file, &tensor.name), "{}", tensor.name);
            let (dtype, shape) = file.info(&tensor.name).unwrap();
            assert_eq!(
                (tensor.dtype, &tensor.shape),
                (dtype, &shape),
                "{}",
                tensor.name
            );
        }
        let read = Record::read(&file, &format!("{case}.packed")).unwrap();
        assert_eq!(read, record);
    }
}

#[test]
fn nvfp4_codes_and_scales_are_packed_as_the_reference_packs_them() {
    let file = golden();
    let (n, k) = (128, 256);
    let case = format!("nvfp4.{n}x{k}");
    let codes: Vec<i8> = values(&file, &format!("{case}.codes"))
        .iter()
        .map(|c| *c as i8)
        .collect();
    let place = |n, c| layout::code_place(n, c, k);
    let packed = layout::pack_codes(&codes, n, k, place);
    assert_eq!(packed, bytes(&file, &format!("{case}.packed.qweight")));
    let back = layout::unpack_codes(&packed, n, k, place);
    assert!(back.iter().zip(&codes).all(|(a, b)| *a == *b as u8));
    let scales = bytes(&file, &format!("{case}.scales"));
    let place = |n, g| layout::micro_scale_place(n, g, k);
    let packed = layout::pack(&scales, k / 16, place);
    assert_eq!(packed, bytes(&file, &format!("{case}.packed.wscales")));
    assert_eq!(layout::unpack(&packed, k / 16, place), scales);
}

#[test]
fn awq_codes_are_packed_as_the_reference_packs_them() {
    let file = golden();
    let (n, k) = (24, 192);
    let case = format!("awq.{n}x{k}");
    let codes: Vec<i8> = values(&file, &format!("{case}.codes"))
        .iter()
        .map(|c| *c as i8)
        .collect();
    let place = |n, c| layout::awq_place(n, c, k);
    let packed = layout::pack_codes(&codes, n, k, place);
    assert_eq!(packed, bytes(&file, &format!("{case}.packed.qweight")));
    let back = layout::unpack_codes(&packed, n, k, place);
    assert!(back.iter().zip(&codes).all(|(a, b)| *a == *b as u8));
}

/// A file with one layer.
fn file_of(tensors: Vec<OutTensor<'static>>) -> SafetensorsFile {
    let bytes = safetensors_bytes(&tensors, &BTreeMap::new()).unwrap();
    SafetensorsFile::from_bytes(bytes, "made").unwrap()
}

fn noise(count: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.4987;
    (0..count).map(value).collect()
}

#[test]
fn an_nvfp4_layer_goes_round_in_either_naming() {
    let (outputs, inputs, rank) = (128, 256, 16);
    let half = HalfType::Bf16;
    let rounded = |values: Vec<f32>| {
        values
            .into_iter()
            .map(|v| half.round(v))
            .collect::<Vec<_>>()
    };
    let weight = Floats::round(&noise(outputs * inputs), half);
    let record = Record {
        outputs,
        inputs,
        half,
        codes: Codes::Nvfp4(Floats {
            channel_scales: Some(vec![1.0; outputs]),
            ..weight.clone()
        }),
        smooth: rounded((0..inputs).map(|i| 0.5 + i as f32 / 256.0).collect()),
        smooth_orig: Some(vec![1.0; inputs]),
        bias: None,
        branch: Some(Branch {
            rank,
            down: rounded(noise(rank * inputs)),
            up: rounded(noise(outputs * rank)),
        }),
    };
    assert_eq!(record.residual(), weight.values(inputs));
    for naming in [Naming::First, Naming::Second] {
        let file = file_of(record.tensors("layer", naming));
        let read = Record::read(&file, "layer").unwrap();
        assert_eq!(read, record);
        for tensor in read.tensors("layer", naming) {
            assert_eq!(tensor.data, bytes(&file, &tensor.name));
        }
    }
}

#[test]
fn a_w4a16_layer_goes_round_and_is_close_to_its_weight() {
    let (outputs, inputs) = (12, 128);
    let weight = noise(outputs * inputs);
    let layer = Awq::round(&weight, inputs, Some(&noise(outputs)), HalfType::F16);
    let file = file_of(layer.tensors("norm.linear"));
    assert_eq!(Awq::read(&file, "norm.linear").unwrap(), layer);
    let worst = layer
        .weight()
        .iter()
        .zip(&weight)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 0.5 / 7.0 / 2.0 + 1e-3, "{worst}");
}

/// The layer of the golden with one tensor changed.
fn changed(name: &str, change: impl FnOnce(&mut OutTensor<'static>)) -> String {
    let file = golden();
    let record = Record::read(&file, "int4.128x384.packed").unwrap();
    let mut tensors = record.tensors("layer", Naming::First);
    let place = tensors
        .iter()
        .position(|t| t.name == format!("layer.{name}"))
        .unwrap();
    change(&mut tensors[place]);
    tensors.retain(|t| !t.name.is_empty());
    Record::read(&file_of(tensors), "layer")
        .unwrap_err()
        .to_string()
}

#[test]
fn bad_layers_are_refused_by_the_name_of_the_tensor() {
    let set = |value: f32| {
        move |tensor: &mut OutTensor<'static>| {
            let bytes = HalfType::F16.bytes(&[value]);
            tensor.data.to_mut()[6..8].copy_from_slice(&bytes);
        }
    };
    let shape = |shape: &'static [usize], dtype| {
        move |tensor: &mut OutTensor<'static>| {
            let bytes = shape.iter().product::<usize>() * brisk_store::Dtype::size(dtype);
            (tensor.shape, tensor.dtype) = (shape.to_vec(), dtype);
            tensor.data = Cow::Owned(vec![0; bytes]);
        }
    };
    use brisk_store::Dtype::{BF16, F16, F32, I8};
    let gone = |tensor: &mut OutTensor<'static>| tensor.name.clear();
    let cases = [
        ("wscales", changed("wscales", gone), "missing"),
        ("smooth", changed("smooth", gone), "missing"),
        ("lora_up", changed("lora_up", gone), "missing"),
        ("lora_down", changed("lora_down", gone), "missing"),
        ("wscales", changed("wscales", set(f32::NAN)), "NaN"),
        ("bias", changed("bias", set(f32::INFINITY)), "inf"),
        ("smooth", changed("smooth", set(0.0)), "is 0"),
        (
            "wscales",
            changed("wscales", shape(&[3, 128], F16)),
            "groups of 128",
        ),
        (
            "wscales",
            changed("wscales", shape(&[6, 128], BF16)),
            "BF16",
        ),
        (
            "qweight",
            changed("qweight", shape(&[128, 96], I8)),
            "multiples of 128",
        ),
        (
            "qweight",
            changed("qweight", shape(&[64, 64], I8)),
            "multiples of 128",
        ),
        (
            "qweight",
            changed("qweight", shape(&[0, 64], I8)),
            "multiples of 128",
        ),
        ("smooth", changed("smooth", shape(&[384], F32)), "F32"),
        ("bias", changed("bias", shape(&[256], F16)), "[256]"),
        (
            "lora_down",
            changed("lora_down", shape(&[384, 12], F16)),
            "multiple of 16",
        ),
        (
            "lora_up",
            changed("lora_up", shape(&[128, 32], F16)),
            "[128, 32]",
        ),
    ];
    for (tensor, error, part) in cases {
        assert!(
            error.contains(&format!("\"layer.{tensor}\"")),
            "{tensor}: {error}"
        );
        assert!(
            error.contains(part) && error.contains("made"),
            "{tensor}: {error}"
        );
    }
}
