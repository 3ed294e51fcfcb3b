//! What a picture file says of how its picture was made.

use brisk_media::encode_png;
use brisk_pipelines::{GeneratedImage, ImagePlan, Result};
use serde_json::Value;

/// Keyword of the PNG text that holds the request as JSON.
pub const REQUEST_KEYWORD: &str = "brisk";
/// Keyword that picture managers show.
pub const PARAMETERS_KEYWORD: &str = "parameters";

/// Everything that made picture `index` of a plan, as JSON; `model` is the name that finds the model
/// again.
pub fn describe(plan: &ImagePlan, index: usize, model: &str) -> Value {
    let mut document = plan.describe(index);
    document.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    document.insert("model".to_owned(), model.into());
    Value::Object(document)
}

/// The form that picture managers know.
fn for_people(plan: &ImagePlan, index: usize, model: &str) -> String {
    let text = |name: &str| match plan.settings.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let image = &plan.images[index];
    let mut written = format!("{}\n", image.prompt);
    let negative = text("negative_prompt");
    if !negative.is_empty() {
        written.push_str(&format!("Negative prompt: {negative}\n"));
    }
    if let Some(steps) = plan.known_steps() {
        written.push_str(&format!("Steps: {steps}, "));
    }
    for (title, name) in [
        ("Sampler", "scheduler"),
        ("Sampler", "sampler"),
        ("CFG scale", "guidance"),
    ] {
        let value = text(name);
        if !value.is_empty() {
            written.push_str(&format!("{title}: {value}, "));
        }
    }
    written.push_str(&format!(
        "Seed: {}, Size: {}x{}, Model: {model}, Version: brisk {}",
        image.seed,
        plan.width,
        plan.height,
        env!("CARGO_PKG_VERSION"),
    ));
    written
}

/// A picture as a PNG file that says how it was made, in two texts: [`REQUEST_KEYWORD`] for programs and
/// [`PARAMETERS_KEYWORD`] for people.
///
/// # Errors
/// A picture that cannot be encoded.
pub fn described_png(
    image: &GeneratedImage,
    plan: &ImagePlan,
    index: usize,
    model: &str,
) -> Result<Vec<u8>> {
    let texts = [
        (
            REQUEST_KEYWORD.to_owned(),
            describe(plan, index, model).to_string(),
        ),
        (
            PARAMETERS_KEYWORD.to_owned(),
            for_people(plan, index, model),
        ),
    ];
    Ok(encode_png(&image.picture, &texts)?)
}
