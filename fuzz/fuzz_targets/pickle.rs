//! Any bytes as a PyTorch checkpoint: an error or readable tensors, never a panic.
//! Run: `cargo +nightly fuzz run pickle fuzz/corpus/pickle fuzz/seeds/pickle`
#![no_main]

use brisk_store::{PickleFile, TensorSource, summarise};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = PickleFile::from_bytes(bytes.to_vec(), "fuzz") else { return };
    summarise(&file);
    for name in file.names() {
        let view = file.view(&name).expect("checked at opening").expect("it is in the list");
        view.to_f32().expect("its shape was checked");
    }
});
