//! Which model a file holds, by the names of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use brisk::{ResultKind, registry as families};
use brisk_models::{foreign, low_bit, registry};
use brisk_store::{SafetensorsFile, TensorSource};
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

/// What `brisk image` makes of a pipeline class.
pub fn pipeline(class: &str) -> String {
    match families::class_in_words(class) {
        Some(words) => format!("{words} ({class})"),
        None => {
            let family = class.strip_suffix("Pipeline").unwrap_or(class);
            let known = families::in_words(ResultKind::Pictures);
            format!("{family} ({class}); {known}, not this")
        }
    }
}

/// Metadata of a safetensors file; empty for other formats.
pub fn metadata(path: &Path) -> BTreeMap<String, String> {
    SafetensorsFile::open(path)
        .map(|file| file.metadata().clone())
        .unwrap_or_default()
}

/// Looks at names and shapes.
pub fn identify(source: &dyn TensorSource, metadata: &BTreeMap<String, String>) -> Result<Found> {
    let plain = |name: &str, known: bool| Found {
        name: name.to_owned(),
        known,
        details: Map::new(),
    };
    if metadata
        .get("format")
        .is_some_and(|format| format.starts_with("brisk-emoji"))
    {
        return Ok(plain("emoji data set (brisk train prepare-emoji)", true));
    }
    let names = source.names();
    if let Some(found) = lora(source, &names) {
        return Ok(found);
    }
    if let Some((component, found)) = registry::recognise(source, metadata)? {
        let mut details = found.details;
        if found.stands_alone && component.folders.contains(&"transformer") {
            let hint = match brisk_quant::file::is_quantized(source) {
                true => "brisk image --transformer FILE, brisk convert",
                false => "brisk image --transformer FILE --vae MODEL --text-encoder MODEL",
            };
            details.insert("use".to_owned(), hint.into());
        }
        return Ok(Found {
            name: found.name,
            known: true,
            details,
        });
    }
    if brisk_quant::file::is_quantized(source) {
        let found = low_bit::describe(source, metadata, "transformer");
        return Ok(Found {
            details: found.details,
            ..plain(&found.name, false)
        });
    }
    let other = foreign::recognise(source);
    Ok(plain(
        other.unwrap_or("tensors of no model that brisk knows"),
        false,
    ))
}

fn lora(source: &dyn TensorSource, names: &[String]) -> Option<Found> {
    const PARTS: [&str; 6] = [
        ".lora_A.",
        ".lora_B.",
        ".lora_down.",
        ".lora_up.",
        ".lora.down.",
        ".lora.up.",
    ];
    // 4-bit layers have a branch of such a name.
    let is_lora = |name: &String| PARTS.iter().any(|part| name.contains(part));
    if brisk_quant::file::is_quantized(source) || !names.iter().any(is_lora) {
        return None;
    }
    let down = |name: &&String| name.contains("lora_A") || name.contains("lora_down");
    let rank = names
        .iter()
        .find(down)
        .and_then(|name| source.info(name)?.1.first().copied());
    let known = names
        .iter()
        .any(|name| name.contains("transformer_blocks."));
    let details = json!({"modules": names.iter().filter(down).count(), "rank": rank});
    Some(Found {
        name: match known {
            true => "LoRA for a diffusers transformer",
            false => "LoRA",
        }
        .to_owned(),
        known,
        details: details.as_object().cloned().unwrap_or_default(),
    })
}
