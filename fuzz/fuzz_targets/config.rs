//! Any bytes as each of the configuration files: a checked configuration or an error, never a panic.
//! Run: `cargo +nightly fuzz run config fuzz/corpus/config fuzz/seeds/config`
#![no_main]

use brisk_models::dcae::AutoencoderConfig;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::language_model::LanguageModelConfig;
use brisk_models::sana::SanaConfig;
use brisk_models::sana_controlnet::SanaControlNetConfig;
use brisk_pipelines::diffusion::schedulers::SchedulerConfig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What a configuration accepts, it can also count.
    if let Ok(config) = AutoencoderConfig::from_json(bytes, "fuzz") {
        config.parameters();
    }
    if let Ok(config) = Gemma2Config::from_json(bytes, "fuzz") {
        config.parameters();
    }
    if let Ok(config) = LanguageModelConfig::from_json(bytes, "fuzz") {
        config.parameters();
    }
    if let Ok(config) = SanaConfig::from_json(bytes, "fuzz") {
        config.parameters();
    }
    if let Ok(config) = SanaControlNetConfig::from_json(bytes, "fuzz") {
        config.parameters();
    }
    drop(SchedulerConfig::from_bytes(bytes, "fuzz"));
});
