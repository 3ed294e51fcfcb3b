//! What the autoencoder's tests share: its fixtures.

#![allow(dead_code)] // each test binary uses its part

use std::sync::Arc;

use brisk_models::dcae::AutoencoderConfig;
use brisk_store::{TensorSource, open_weights};
use brisk_testkit::fixtures_dir;

pub const CASES: [&str; 4] = ["a", "b", "c", "d"];

pub fn config(case: &str) -> AutoencoderConfig {
    let path = fixtures_dir().join("dcae").join(case).join("config.json");
    AutoencoderConfig::from_json(&std::fs::read(path).unwrap(), case).unwrap()
}

pub fn source(case: &str, file: &str) -> Arc<dyn TensorSource> {
    open_weights(&fixtures_dir().join("dcae").join(case).join(file)).unwrap()
}

pub fn diffusers(case: &str) -> Arc<dyn TensorSource> {
    source(case, "diffusion_pytorch_model.safetensors")
}
