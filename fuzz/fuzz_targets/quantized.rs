//! Any bytes as a file of quantized layers: every layer or an error, never a panic.
//! Run: `cargo +nightly fuzz run quantized fuzz/corpus/quantized fuzz/seeds/quantized`
#![no_main]

use std::sync::Arc;

use brisk_models::sana::SanaLayout;
use brisk_quant::lite::LiteConfig;
use brisk_quant::{LowBitModel, NunchakuFile};
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
    let layout = SanaLayout {
        layers: 1,
        width: 128,
        head_dim: 32,
        cross_width: 128,
        hidden: 128,
    };
    let Ok(model) = LowBitModel::new(file, Box::new(layout)) else {
        return;
    };
    let _ = model.unpack(|_| Ok::<(), brisk_quant::Error>(()));
    for name in model.plain().names() {
        let _ = model.plain().view(&name);
    }
});
