//! Any bytes as a safetensors file: an error or readable tensors, never a panic.
//! Run: `cargo +nightly fuzz run safetensors fuzz/corpus/safetensors fuzz/seeds/safetensors`
#![no_main]

use brisk_store::{SafetensorsFile, TensorSource, summarise};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafetensorsFile::from_bytes(bytes.to_vec(), "fuzz") else { return };
    summarise(&file);
    for name in file.names() {
        let view = file.view(&name).expect("checked at opening").expect("it is in the list");
        view.to_f32().expect("its shape was checked");
    }
});
