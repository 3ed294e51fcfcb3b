//! Any bytes as an adapter file, or, where they begin with a brace, as PEFT's configuration and as the metadata beside
//! a sound pair: a layer adapted or an error, never a panic.
//! Run: `cargo +nightly fuzz run lora fuzz/corpus/lora fuzz/seeds/lora`
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Init, Lora, WeightsBuilder};
use brisk_store::{Dtype, MemorySource, SafetensorsFile, TensorSource};

/// Tensors of ones.
fn ones(tensors: &[(&str, &[usize])]) -> Arc<dyn TensorSource> {
    let tensors = tensors.iter().map(|(name, shape)| {
        let count = shape.iter().product::<usize>();
        let bytes = 1f32.to_le_bytes().repeat(count);
        ((*name).to_owned(), Dtype::F32, shape.to_vec(), bytes)
    });
    Arc::new(MemorySource::new(tensors.collect()).expect("names differ and sizes fit"))
}

/// Adapts the layers `x.0` `[2, 3]` with a bias and `y` `[1, 2]`.
fn adapt(lora: Lora) {
    lora.layers().for_each(drop);
    let model = ones(&[("x.0.weight", &[2, 3]), ("x.0.bias", &[2]), ("y.weight", &[1, 2])]);
    let Ok(weights) = WeightsBuilder::from_source(model).lora(Arc::new(lora), 0.5).build() else {
        return;
    };
    let layer = weights.pp("x").pp(0);
    drop(layer.get("weight", &[2, 3], Init::Zeros));
    drop(layer.get("bias", &[2], Init::Zeros));
    drop(weights.pp("y").get("weight", &[1, 2], Init::Zeros));
    drop(weights.finish(&[]));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.first() == Some(&b'{') {
        let pair = || ones(&[("transformer.x.0.lora_A.weight", &[1, 3]), ("transformer.x.0.lora_B.weight", &[2, 1])]);
        if let Ok(lora) = Lora::new(pair(), &BTreeMap::new(), Some((bytes, "fuzz"))) {
            adapt(lora);
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        let metadata = BTreeMap::from([("lora_adapter_metadata".to_owned(), text)]);
        if let Ok(lora) = Lora::new(pair(), &metadata, None) {
            adapt(lora);
        }
    } else if let Ok(file) = SafetensorsFile::from_bytes(bytes.to_vec(), "fuzz") {
        let metadata = file.metadata().clone();
        if let Ok(lora) = Lora::new(Arc::new(file), &metadata, None) {
            adapt(lora);
        }
    }
});
