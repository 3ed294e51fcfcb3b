//! `brisk models`: what can be drawn and written with.

use brisk_store::ModelFolder;
use brisk_store::hub::HubOptions;
use clap::Args;
use serde_json::{Value, json};

use crate::catalogue::PUBLISHED;
use crate::failure::Result;
use crate::{box_model, models, output, text};

/// List models: in the box, in the local cache, published
#[derive(Debug, Args)]
#[command(
    before_help = "Give a name to `brisk image --model` or `brisk text --model`. A published model is downloaded to the hub cache on its\n\
    first use (HF_HOME chooses the place) and then found there, also by Python tools. Weights are\n\
    used under their own licences; see the model's page on the hub. Also loaded: any folder in the\n\
    same layout, and the authors' own .pth files (see `brisk image --transformer`)."
)]
pub struct ModelsArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &ModelsArguments) -> Result {
    let cache = HubOptions::from_env().cache;
    let cached = models::cached(&cache);
    let boxed: Vec<_> = box_model::all()
        .into_iter()
        .filter(|model| model.folder().is_some())
        .collect();
    let kind = |model: &models::Cached| pipeline_class(&ModelFolder::Disk(model.folder.clone()));
    if arguments.json {
        let cached: Vec<Value> = cached
            .iter()
            .map(|model| {
                json!({
                    "id": model.id, "class": kind(model), "bytes": model.bytes,
                    "folder": model.folder.display().to_string(),
                })
            })
            .collect();
        let published: Vec<Value> = PUBLISHED
            .iter()
            .map(|model| json!({"id": model.id, "model": model.model, "pixels": model.pixels, "note": model.note}))
            .collect();
        return output::print_json(&json!({
            "in_the_box": boxed.iter()
                .map(|model| json!({"name": model.name, "verb": model.verb, "bytes": model.size()}))
                .collect::<Vec<Value>>(),
            "cache": cache.display().to_string(),
            "cached": cached,
            "published": published,
        }));
    }
    let mut out = String::from("In the box:\n");
    if boxed.is_empty() {
        out.push_str("  none in this build\n");
    }
    let rows: Vec<Vec<String>> = boxed
        .iter()
        .map(|model| {
            let default = format!("the default of `brisk {}`", model.verb);
            let about = format!("{}, {default}", model.about);
            vec![
                format!("  {}", model.name),
                about,
                text::bytes(model.size()),
            ]
        })
        .collect();
    out.push_str(&text::table(&rows));
    out.push_str(&format!("\nIn the hub cache ({}):\n", cache.display()));
    if cached.is_empty() {
        out.push_str("  none\n");
    }
    let rows: Vec<Vec<String>> = cached
        .iter()
        .map(|model| {
            let class = kind(model).unwrap_or_else(|| "no pipeline".to_owned());
            vec![format!("  {}", model.id), class, text::bytes(model.bytes)]
        })
        .collect();
    out.push_str(&text::table(&rows));
    out.push_str("\nPublished, loaded by hub id:\n");
    let rows: Vec<Vec<String>> = PUBLISHED
        .iter()
        .map(|model| {
            vec![
                format!("  {}", model.id),
                model.model.to_owned(),
                format!("{} px", model.pixels),
                model.note.to_owned(),
            ]
        })
        .collect();
    out.push_str(&text::table(&rows));
    output::print(&out)
}

/// `_class_name` of a pipeline folder.
pub fn pipeline_class(folder: &ModelFolder) -> Option<String> {
    let index = folder.read_json("model_index.json").ok()?;
    Some(index.get("_class_name")?.as_str()?.to_owned())
}
