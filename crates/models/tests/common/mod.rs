//! What the SANA tests share: inputs from a golden, and the golden's names for what a trace shows.

#![allow(dead_code)] // each test binary uses its part

use brisk_models::sana::{ForwardExtras, SanaConfig, SanaTransformer, compact_text};
use brisk_nn::{Tensor, Weights, WeightsBuilder, ops};
use brisk_testkit::{Golden, fixtures_dir};

pub const TOLERANCE: f64 = 1e-4;

/// A forward pass's inputs in this crate's layout.
pub struct Inputs {
    pub latent: Tensor,
    pub text: Tensor,
    pub lengths: Vec<usize>,
    pub timestep: Tensor,
    pub guidance: Option<Tensor>,
}

impl Inputs {
    pub fn read(golden: &Golden) -> Self {
        let text = golden.get("inputs.encoder_hidden_states");
        let mask = golden.mask("inputs.encoder_attention_mask");
        let (text, lengths) = compact_text(&text, &mask).unwrap();
        Self {
            latent: nhwc(&golden.get("inputs.hidden_states")),
            text,
            lengths,
            timestep: golden.get("inputs.timestep"),
            guidance: golden.find("inputs.guidance"),
        }
    }
}

pub fn nhwc(x: &Tensor) -> Tensor {
    ops::to_nhwc(x).unwrap()
}

pub fn nchw(x: &Tensor) -> Tensor {
    ops::to_nchw(x).unwrap()
}

/// The golden's name and layout for a traced tensor.
pub fn wanted_block(name: &str, x: &Tensor) -> (String, Tensor) {
    let plain = match name.strip_prefix("transformer_blocks.") {
        Some(block) if !block.contains('.') => format!("blocks.{block}.output"),
        Some(part) => format!("blocks.{part}"),
        None => match name {
            "time_embed" => "blocks.time_embed.0".into(),
            "time_embed.embedded" => "blocks.time_embed.1".into(),
            _ => format!("blocks.{name}"),
        },
    };
    let feature_map = plain.ends_with(".ff") || plain.ends_with(".ff.input");
    (plain, if feature_map { nchw(x) } else { x.clone() })
}

pub fn config(case: &str) -> SanaConfig {
    let path = fixtures_dir()
        .join("sana_transformer")
        .join(case)
        .join("config.json");
    SanaConfig::from_json(&std::fs::read(path).unwrap(), "config.json").unwrap()
}

pub fn weights_builder(case: &str) -> WeightsBuilder {
    let folder = fixtures_dir().join("sana_transformer").join(case);
    let file = folder.join("diffusion_pytorch_model.safetensors");
    WeightsBuilder::from_source(brisk_store::open_weights(&file).unwrap())
}

pub fn weights(case: &str) -> Weights {
    weights_builder(case).build().unwrap()
}

pub fn load(case: &str) -> SanaTransformer {
    SanaTransformer::load(&config(case), &weights(case)).unwrap()
}

pub fn golden(case: &str) -> Golden {
    Golden::open(&format!("sana_transformer/{case}/golden.safetensors"))
}

pub fn run(model: &SanaTransformer, inputs: &Inputs, extras: &ForwardExtras) -> Tensor {
    let caption = model.encode_caption(&inputs.text, &inputs.lengths).unwrap();
    let guidance = inputs.guidance.as_ref();
    let out = model.forward(&inputs.latent, &inputs.timestep, guidance, &caption, extras);
    nchw(&out.unwrap())
}
