//! The fuzzer's bad files of quantized layers: each is refused for the reason that is its name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brisk_quant::{Awq, HalfType, NunchakuFile};
use brisk_store::{SafetensorsFile, safetensors_bytes};

const REASONS: [(&str, &str); 21] = [
    ("claims_gptq", "method is \"gptq\""),
    ("claims_nothing", "quantization_config"),
    ("codes_i16", "layer.qweight"),
    ("empty_record", "layer.qweight"),
    ("flat", "layer.qweight"),
    ("group_128", "for groups of 64 inputs"),
    ("group_32", "for groups of 64 inputs"),
    ("infinite_zero", "layer.wzeros"),
    ("long_bias", "layer.bias"),
    ("lying_shape", "layer.qweight"),
    ("more_outputs", "layer.wscales"),
    ("nan_scale", "value 3 is NaN"),
    ("no_layers", "no quantized layers"),
    ("no_outputs", "layer.qweight"),
    ("no_scales", "layer.wscales"),
    ("no_zeros", "layer.wzeros"),
    ("not_a_tile", "layer.qweight"),
    ("odd_inputs", "multiple of 64"),
    ("scales_f32", "layer.wscales"),
    ("truncated", "truncated"),
    ("zeros_f16", "layer.wzeros"),
];

fn read(bytes: Vec<u8>) -> Result<(), String> {
    let file = SafetensorsFile::from_bytes(bytes, "bad file").map_err(|e| e.to_string())?;
    let metadata = file.metadata().clone();
    let file = NunchakuFile::new(Arc::new(file), metadata, "bad file".to_owned());
    let file = file.map_err(|e| e.to_string())?;
    file.check().map_err(|e| e.to_string())
}

#[test]
fn seeds_are_refused_for_the_reason_that_is_their_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/quantized");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, REASONS.map(|(name, _)| name));
    for (name, reason) in REASONS {
        let error = read(std::fs::read(folder.join(name)).unwrap()).expect_err(name);
        assert!(
            error.contains("bad file") && error.contains(reason),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_sound_layer_of_that_size_is_accepted() {
    let weight: Vec<f32> = (0..256).map(|i| i as f32 / 256.0).collect();
    let layer = Awq::round(&weight, 64, None, HalfType::Bf16);
    let bytes = safetensors_bytes(&layer.tensors("layer"), &BTreeMap::new()).unwrap();
    assert_eq!(read(bytes), Ok(()));
}
