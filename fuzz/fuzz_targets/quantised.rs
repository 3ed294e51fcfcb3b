//! Any bytes as a file of quantised layers: every layer or an error, never a panic.
//! Run: `cargo +nightly fuzz run quantised fuzz/corpus/quantised fuzz/seeds/quantised`
#![no_main]

use std::sync::Arc;

use brisk_quant::NunchakuFile;
use brisk_quant::file::LiteConfig;
use brisk_quant::sana::{Part, SanaFile, SanaShape};
use brisk_store::SafetensorsFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = serde_json::from_slice(bytes) {
        let _ = LiteConfig::from_config(&config, "fuzz");
    }
    let Ok(file) = SafetensorsFile::from_bytes(bytes.to_vec(), "fuzz") else {
        return;
    };
    let metadata = file.metadata().clone();
    let Ok(file) = NunchakuFile::new(Arc::new(file), metadata, "fuzz".to_owned()) else {
        return;
    };
    let _ = file.check();
    let _ = file.config();
    let shape = SanaShape {
        layers: 1,
        width: 128,
        head_dim: 32,
        cross_width: 128,
        hidden: 128,
    };
    let Ok(sana) = SanaFile::new(file, shape) else {
        return;
    };
    for part in Part::ALL {
        for name in part.plain_names() {
            let _ = sana.plain_layer(&format!("transformer_blocks.0.{name}"));
        }
    }
});
