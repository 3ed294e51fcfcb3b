//! Any bytes as each of the configuration files: a checked configuration or an error, never a panic.
//! Run: `cargo +nightly fuzz run config fuzz/corpus/config fuzz/seeds/config`
#![no_main]

use brisk_models::registry::COMPONENTS;
use brisk_pipelines::diffusion::schedulers::SchedulerConfig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for component in COMPONENTS {
        // What a configuration accepts, it can also count and describe.
        if let Ok(config) = (component.open)(bytes, "fuzz") {
            config.parameters();
            config.description();
            config.facts();
        }
    }
    drop(SchedulerConfig::from_bytes(bytes, "fuzz"));
});
