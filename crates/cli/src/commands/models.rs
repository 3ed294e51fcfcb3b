//! `brisk models`: what can be drawn and written with, and fetching it ahead of use.

mod show;

use brisk_store::ModelFolder;
use brisk_store::hub::{self, HubOptions};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use brisk::{BoxModel, Cached, registry};

use super::stop_on_interrupt;
use crate::failure::{Result, verb};
use crate::progress::Download;
use crate::{output, text};

/// List models: in the box, in the local cache, published; `show` tells of one, `pull` fetches one
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    before_help = "Give a name to `brisk image --model` or `brisk text --model`. A published model is downloaded to the hub cache on its\n\
    first use (HF_HOME chooses the place) and then found there, also by Python tools. Weights are\n\
    used under their own licences; see the model's page on the hub. Also loaded: any folder in the\n\
    same layout, and the authors' own .pth files (see `brisk image --transformer`)."
)]
pub struct ModelsArguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<ModelsVerb>,
}

#[derive(Debug, Subcommand)]
enum ModelsVerb {
    Show(show::ShowArguments),
    Pull(PullArguments),
}

/// Fetch a model into the hub cache, or bring it up to date
#[derive(Debug, Args)]
#[command(
    before_help = "What was fetched in part is gone on with, and large files are compared with the hub's SHA-256.\n\
    Afterwards the model is found by its id, also offline. HF_TOKEN is sent for gated models."
)]
struct PullArguments {
    /// OWNER/NAME, OWNER/NAME@REVISION (branch, tag or commit), or OWNER/NAME/FILE.safetensors
    #[arg(value_name = "ID")]
    id: String,
    /// Variant of the weights to prefer, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &ModelsArguments) -> Result {
    match &arguments.verb {
        Some(ModelsVerb::Show(arguments)) => show::run(arguments),
        Some(ModelsVerb::Pull(arguments)) => pull(arguments),
        None => list(arguments),
    }
}

fn pull(arguments: &PullArguments) -> Result {
    stop_on_interrupt()?;
    let options = HubOptions {
        variant: arguments.variant.clone(),
        ..HubOptions::from_env()
    };
    let place = hub::pull(&arguments.id, &options, &Download::default())?;
    let shown = place.display().to_string();
    if arguments.json {
        let bytes = match place.is_dir() {
            true => brisk::folder_bytes(&place),
            false => std::fs::metadata(&place).map_or(0, |metadata| metadata.len()),
        };
        let document = json!({"id": arguments.id, "path": shown, "bytes": bytes});
        return output::print_json(&document);
    }
    output::print(&shown)
}

fn list(arguments: &ModelsArguments) -> Result {
    let cache = HubOptions::from_env().cache;
    let cached = brisk::cached(&cache);
    let published: Vec<_> = registry::FAMILIES
        .iter()
        .flat_map(|family| family.published)
        .collect();
    let boxed: Vec<_> = BoxModel::all()
        .iter()
        .filter(|model| model.folder().is_some())
        .collect();
    let kind = |model: &Cached| pipeline_class(&ModelFolder::Disk(model.folder.clone()));
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
        let listed: Vec<Value> = published
            .iter()
            .map(|model| json!({"id": model.id, "model": model.model, "pixels": model.pixels, "note": model.note}))
            .collect();
        return output::print_json(&json!({
            "in_the_box": boxed.iter()
                .map(|model| json!({"name": model.name, "verb": model.default_of.map(verb), "bytes": model.size()}))
                .collect::<Vec<Value>>(),
            "cache": cache.display().to_string(),
            "cached": cached,
            "published": listed,
        }));
    }
    let mut out = String::from("In the box:\n");
    if boxed.is_empty() {
        out.push_str("  none in this build\n");
    }
    let rows: Vec<Vec<String>> = boxed
        .iter()
        .map(|model| {
            let about = match model.default_of {
                Some(kind) => format!("{}, the default of `brisk {}`", model.about, verb(kind)),
                None => model.about.to_owned(),
            };
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
    let rows: Vec<Vec<String>> = published
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
