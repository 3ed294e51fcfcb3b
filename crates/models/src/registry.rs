//! Every network that brisk runs, one line each.

use std::collections::BTreeMap;

use brisk_store::TensorSource;
use serde_json::Value;

use crate::component::{Component, Entry, Recognised};
use crate::{
    Result, class_conditional, clip, craft, crnn, dcae, gemma2, hart, hunyuan_video,
    language_model, llava, qwen2, sam, sana, sana_controlnet, vila_u,
};

/// The networks. Adding one is its folder with a `component.rs`, and a line here.
pub static COMPONENTS: &[&Component] = &[
    &sana::COMPONENT,
    &sana_controlnet::COMPONENT,
    // Its published files hold the next one's tensors, too.
    &class_conditional::COMPONENT,
    &dcae::COMPONENT,
    &gemma2::COMPONENT,
    &language_model::COMPONENT,
    &qwen2::COMPONENT,
    &hart::COMPONENT,
    &hart::tokenizer::COMPONENT,
    &vila_u::LANGUAGE_MODEL,
    &vila_u::TOWER,
    &vila_u::PROJECTOR,
    &hunyuan_video::transformer::COMPONENT,
    &hunyuan_video::autoencoder::COMPONENT,
    &clip::COMPONENT,
    &clip::MODEL,
    &llava::COMPONENT,
    &sam::COMPONENT,
    &craft::COMPONENT,
    &crnn::COMPONENT,
    #[cfg(feature = "toy")]
    &crate::toy::COMPONENT,
];

/// The network that a class or model type names.
pub fn of_class(class: &str) -> Option<&'static Component> {
    let all = COMPONENTS.iter().copied();
    all.into_iter()
        .find(|component| component.classes.contains(&class))
}

/// The network of a checkpoint whose configuration holds nothing but its name.
fn of_checkpoint(name: &str) -> Option<&'static Component> {
    class_conditional::is_published(name).then_some(&class_conditional::COMPONENT)
}

/// The network that a configuration names, by `_class_name`, `architectures`, `model_type` or `name`, or by the
/// `model_name` of a published checkpoint.
pub fn of_config(config: &Value) -> Option<&'static Component> {
    let named = || of_checkpoint(config.get("model_name")?.as_str()?);
    classes(config)
        .into_iter()
        .find_map(of_class)
        .or_else(named)
}

/// The names that a configuration gives its network, the most telling first.
pub fn classes(config: &Value) -> Vec<&str> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let architectures = config.get("architectures").and_then(Value::as_array);
    let architectures = architectures.into_iter().flatten();
    let mut classes: Vec<&str> = text("_class_name").into_iter().collect();
    classes.extend(architectures.filter_map(Value::as_str));
    classes.extend(text("model_type"));
    classes.extend(text("name"));
    classes.extend(text("model_name"));
    classes
}

/// Every way to run a network with the networks that have it, by the name of the way.
pub fn entries() -> Vec<(&'static Component, &'static Entry)> {
    let all = COMPONENTS.iter();
    all.flat_map(|component| component.entries.iter().map(|entry| (*component, entry)))
        .collect()
}

/// Which network a weights file holds, by its tensors and its own table of texts.
///
/// # Errors
/// A file in one of the known layouts that contradicts itself.
pub fn recognise(
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<(&'static Component, Recognised)>> {
    for component in COMPONENTS {
        if let Some(found) = (component.recognise)(source, metadata)? {
            return Ok(Some((component, found)));
        }
    }
    Ok(None)
}
