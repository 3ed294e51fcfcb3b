//! Which model a file holds, by the names of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use brisk_models::dcae::native::Family;
use brisk_models::{dcae, sana};
use brisk_store::{Dtype, SafetensorsFile, TensorSource};
use serde_json::{Map, Value, json};

use crate::failure::Result;

/// What a file turned out to be.
pub struct Found {
    /// In words.
    pub name: String,
    /// Whether brisk loads it.
    pub known: bool,
    /// More about it.
    pub details: Map<String, Value>,
}

/// Models by a tensor that only they have. The first match counts.
const BY_NAME: &[(&str, &str, bool)] = &[
    (
        "controlnet_blocks.0.weight",
        "SANA ControlNet (diffusers names)",
        true,
    ),
    (
        "caption_projection.linear_1.weight",
        "SANA transformer (diffusers names)",
        true,
    ),
    (
        "layers.0.pre_feedforward_layernorm.weight",
        "Gemma-2 text encoder",
        true,
    ),
    (
        "model.layers.0.pre_feedforward_layernorm.weight",
        "Gemma-2 language model",
        true,
    ),
    (
        "double_blocks.0.img_attn.qkv.weight",
        "FLUX transformer",
        false,
    ),
    (
        "single_transformer_blocks.0.attn.to_q.weight",
        "FLUX transformer (diffusers names)",
        false,
    ),
    (
        "joint_blocks.0.x_block.attn.qkv.weight",
        "Stable Diffusion 3 transformer",
        false,
    ),
    (
        "model.diffusion_model.input_blocks.0.0.weight",
        "Stable Diffusion checkpoint",
        false,
    ),
    (
        "down_blocks.0.resnets.0.conv1.weight",
        "Stable Diffusion U-Net (diffusers names)",
        false,
    ),
    (
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "AutoencoderKL",
        false,
    ),
    (
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "T5 text encoder",
        false,
    ),
    (
        "text_model.embeddings.token_embedding.weight",
        "CLIP text encoder",
        false,
    ),
    (
        "model.layers.0.self_attn.q_proj.weight",
        "language model",
        false,
    ),
];

/// What `brisk image` makes of a pipeline class.
pub fn pipeline(class: &str) -> String {
    let family = match class {
        "SanaPipeline" | "SanaPAGPipeline" => "SANA or SANA-1.5 pipeline",
        "SanaControlNetPipeline" => "SANA pipeline with ControlNet",
        "SanaSprintPipeline" | "SanaSprintImg2ImgPipeline" => "SANA-Sprint pipeline",
        other => {
            let family = other.strip_suffix("Pipeline").unwrap_or(other);
            return format!(
                "{family} ({other}); brisk image loads SANA, SANA-1.5 and SANA-Sprint, not this"
            );
        }
    };
    format!("{family} ({class})")
}

/// Metadata of a safetensors file; empty for other formats.
pub fn metadata(path: &Path) -> BTreeMap<String, String> {
    SafetensorsFile::open(path)
        .map(|file| file.metadata().clone())
        .unwrap_or_default()
}

/// Looks at names and shapes.
pub fn identify(source: &dyn TensorSource, metadata: &BTreeMap<String, String>) -> Result<Found> {
    let names = source.names();
    let found = |name: &str, known: bool, details: Value| Found {
        name: name.to_owned(),
        known,
        details: match details {
            Value::Object(details) => details,
            _ => Map::new(),
        },
    };
    if metadata
        .get("format")
        .is_some_and(|format| format.starts_with("brisk-emoji"))
    {
        return Ok(found(
            "emoji data set (brisk train prepare-emoji)",
            true,
            Value::Null,
        ));
    }
    if brisk_quant::file::is_quantised(source) {
        return Ok(quantised(source, &names, metadata, found));
    }
    if names.iter().any(|name| is_lora(name)) {
        let modules = names
            .iter()
            .filter(|name| name.contains("lora_A") || name.contains("lora_down"))
            .count();
        let rank = names
            .iter()
            .find(|name| name.contains("lora_A") || name.contains("lora_down"))
            .and_then(|name| source.info(name)?.1.first().copied());
        let sana = names
            .iter()
            .any(|name| name.contains("transformer_blocks."));
        let kind = if sana {
            "LoRA for a diffusers transformer"
        } else {
            "LoRA"
        };
        return Ok(found(kind, sana, json!({"modules": modules, "rank": rank})));
    }
    if let Some(layout) = sana::native::detect(source)? {
        let name = match (layout.control_blocks, layout.guidance_embeds) {
            (0, false) => "SANA transformer (the authors' names)",
            (0, true) => "SANA-Sprint transformer (the authors' names)",
            _ => "SANA transformer with ControlNet (the authors' names)",
        };
        let details = json!({
            "width": layout.width, "blocks": layout.depth, "latent channels": layout.in_channels,
            "caption channels": layout.caption_channels, "patch size": layout.patch_size,
            "QK norm": layout.qk_norm, "guidance embedding": layout.guidance_embeds,
            "ControlNet blocks": layout.control_blocks,
            "use": "brisk image --transformer FILE --vae MODEL --text-encoder MODEL",
        });
        return Ok(found(name, true, details));
    }
    if let Some(family) = dcae::native::detect(source) {
        let details = json!({"stages": match family {
            Family::Paper { stages } | Family::V15 { stages } => stages,
            Family::Sana | Family::Lite => 6,
        }});
        let name = match family {
            Family::Paper { .. } => {
                "DC-AE autoencoder of the paper, in or mix (the authors' names)"
            }
            Family::Sana => "DC-AE autoencoder of SANA (the authors' names)",
            Family::Lite => "DC-AE-Lite autoencoder (the authors' names)",
            Family::V15 { .. } => "DC-AE 1.5 autoencoder (the authors' names)",
        };
        return Ok(found(name, true, details));
    }
    if let Some((_, name, known)) = BY_NAME
        .iter()
        .find(|(tensor, ..)| source.info(tensor).is_some())
    {
        return Ok(found(name, *known, Value::Null));
    }
    let has = |beginning: &str| names.iter().any(|name| name.starts_with(beginning));
    if has("encoder.down_blocks.") && has("decoder.up_blocks.") {
        return Ok(found(
            "DC-AE autoencoder (diffusers names)",
            true,
            Value::Null,
        ));
    }
    Ok(found(
        "tensors of no model that brisk knows",
        false,
        Value::Null,
    ))
}

/// A transformer in nunchaku's layout.
fn quantised(
    source: &dyn TensorSource,
    names: &[String],
    metadata: &BTreeMap<String, String>,
    found: impl Fn(&str, bool, Value) -> Found,
) -> Found {
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    let factor = names
        .iter()
        .find(|name| name.ends_with(".lora_down") || name.ends_with(".proj_down"));
    let rank = factor.and_then(|name| source.info(name)?.1.get(1).copied());
    let float = |name: &String| {
        let dtype = source.info(name).map(|(dtype, _)| dtype);
        dtype == Some(Dtype::F8E4M3)
    };
    let class = metadata.get("model_class").map(String::as_str);
    let sana = names.iter().any(|name| name.contains(".ff.inverted_conv."))
        || class.is_some_and(|class| class.contains("Sana"));
    let precision = if names.iter().any(float) {
        "nvfp4"
    } else {
        "int4"
    };
    let mut details = json!({
        "quantised layers": ending(".qweight"), "of them with 16-bit activations": ending(".wzeros"),
        "precision": precision, "rank": rank, "class": class,
        "use": sana.then_some("brisk image --transformer FILE, brisk convert"),
    });
    if let Some(details) = details.as_object_mut() {
        details.retain(|_, value| !value.is_null());
    }
    let name = if sana {
        "SANA transformer quantised by SVDQuant"
    } else {
        "transformer quantised by SVDQuant"
    };
    found(name, sana, details)
}

fn is_lora(name: &str) -> bool {
    [
        ".lora_A.",
        ".lora_B.",
        ".lora_down.",
        ".lora_up.",
        ".lora.down.",
        ".lora.up.",
    ]
    .iter()
    .any(|part| name.contains(part))
}
