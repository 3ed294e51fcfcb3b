//! `brisk inspect`: what a model, weights file or picture holds, from headers alone.

mod component;
pub mod identify;
mod picture;

use std::path::{Path, PathBuf};

use brisk::{OpenSettings, Options, keys, registry};
use brisk_store::{
    Limit, ModelFolder, TensorSource, open_weights, read_json, summarise, unwrapped,
};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::{models, output, text};
use component::{Component, State};

/// Show what a model, weights file or picture holds
#[derive(Debug, Args)]
#[command(
    before_help = "Models: which one it is, its components, parameters, types of numbers, and what is missing.\n\
    Weights files: safetensors, shard indexes, .pth, LoRA, the authors' own files.\n\
    Pictures: the request inside. Only headers are read, whatever the size; nothing is downloaded\n\
    and no code in a file is run."
)]
pub struct InspectArguments {
    /// File, folder, hub id in the local cache, or a name of a model in the box
    #[arg(value_name = "PATH")]
    path: String,
    /// Also list every tensor with its type and shape
    #[arg(long)]
    tensors: bool,
    /// Weight variant to look at, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &InspectArguments) -> Result {
    if brisk::BoxModel::named(&arguments.path).is_some() {
        return folder(&models::open(Some(&arguments.path), None)?, arguments);
    }
    let path = models::resolve(&arguments.path, arguments.variant.as_deref(), true)?;
    if path.is_dir() {
        return folder(&ModelFolder::Disk(path), arguments);
    }
    if picture::is_picture(&path)? {
        return picture::show(&path, arguments.json);
    }
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
        && !is_index(&path)
    {
        return configuration(&path, arguments.json);
    }
    file(&path, arguments)
}

fn is_index(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.contains(".index."))
}

/// One weights file.
fn file(path: &Path, arguments: &InspectArguments) -> Result {
    let source = open_weights(path)?;
    let summary = summarise(&*source);
    let metadata = identify::metadata(path);
    let found = identify::identify(&*unwrapped(source.clone())?, &metadata)?;
    if arguments.json {
        let mut document = json!({
            "path": path.display().to_string(), "kind": "weights", "model": found.name,
            "loaded_by_brisk": found.known, "details": found.details, "summary": summary, "metadata": metadata,
        });
        if arguments.tensors {
            document["tensors"] = tensor_list(&*source);
        }
        return output::print_json(&document);
    }
    let mut out = format!("{}: {}\n", path.display(), found.name);
    for (key, value) in &found.details {
        out.push_str(&format!("  {key}: {}\n", shortened(&plain(value))));
    }
    out.push_str(&format!(
        "  tensors: {}, {} parameters, {} ({})\n",
        summary.tensors,
        text::count(summary.parameters as u64),
        text::bytes(summary.bytes as u64),
        component::dtypes(&summary)
    ));
    let parts: Vec<Vec<String>> = summary
        .by_prefix
        .iter()
        .take(24)
        .map(|(prefix, count)| vec![format!("    {prefix}"), text::count(*count as u64)])
        .collect();
    if summary.by_prefix.len() > 1 {
        out.push_str(&text::table(&parts));
    }
    for (key, value) in &metadata {
        out.push_str(&format!(
            "  metadata {}: {}\n",
            shortened(key),
            shortened(value)
        ));
    }
    if arguments.tensors {
        out.push_str(&tensor_table(&*source));
    }
    output::print(&out)
}

/// A pipeline's or a component's folder.
fn folder(folder: &ModelFolder, arguments: &InspectArguments) -> Result {
    let variant = arguments.variant.as_deref();
    let (name, components) = if folder.exists("model_index.json") {
        let index = folder.read_json("model_index.json")?;
        let class = index
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or("pipeline without a class");
        (
            identify::pipeline(class),
            component::of_pipeline(folder, &index, variant),
        )
    } else if let Some(parts) = component::of_parts(folder, variant) {
        let family = registry::family_of(folder, &Options::new());
        let name = family.map_or("a model in parts", |family| family.about);
        (name.to_owned(), parts)
    } else if folder.exists("config.json") {
        let component = Component::open(folder, "", None, variant);
        (
            component
                .class
                .clone()
                .unwrap_or_else(|| "a component of unknown class".to_owned()),
            vec![component],
        )
    } else {
        return loose_files(folder, arguments);
    };
    let opened = opened(folder, variant);
    // What a model that opens does without, its notes name.
    let of_parts = components
        .iter()
        .filter(|part| !(matches!(opened, Some(Ok(_))) && part.is_missing()));
    let of_parts: Vec<&Component> = of_parts.collect();
    let mut missing: Vec<String> = of_parts.iter().filter_map(|part| part.problem()).collect();
    let (notes, together) = match opened {
        Some(Ok(notes)) => (notes, None),
        Some(Err(refusal)) => (Vec::new(), missing.is_empty().then_some(refusal)),
        None => (Vec::new(), None),
    };
    missing.extend(together.clone());
    // What is not there yet is a finding; what cannot be read is a failure.
    let damaged = components
        .iter()
        .find(|part| matches!(part.state, State::Damaged(_)))
        .and_then(Component::problem);
    let outcome = damaged.map_or(Ok(()), |problem| Err(Failure::failed(problem)));
    if arguments.json {
        let parts: Vec<Value> = components
            .iter()
            .map(|part| part.json(arguments.tensors))
            .collect();
        output::print_json(&json!({
            "path": folder.label(), "kind": "model", "model": name, "components": parts, "missing": missing,
            "notes": notes,
        }))?;
        return outcome;
    }
    let mut out = format!("{}: {name}\n", folder.label());
    let mut rows = vec![
        ["component", "class", "parameters", "stored", "types"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(components.iter().map(Component::cells));
    out.push_str(&text::table(&rows));
    for part in &components {
        if let Some(facts) = part.facts() {
            out.push_str(&format!("{}: {facts}\n", part.shown_name()));
        }
    }
    for part in of_parts {
        if let Some(problem) = part.problem() {
            out.push_str(&format!("{}: {problem}\n", part.kind_of_problem()));
        }
    }
    if let Some(problem) = together {
        out.push_str(&format!("wrong: {problem}\n"));
    }
    for note in components.iter().filter_map(Component::note).chain(notes) {
        out.push_str(&format!("note: {note}\n"));
    }
    if missing.is_empty() {
        out.push_str("complete\n");
    }
    if arguments.tensors {
        for part in &components {
            if let State::Weights { source, .. } = &part.state {
                out.push_str(&format!(
                    "\n{}\n{}",
                    part.shown_name(),
                    tensor_table(&**source)
                ));
            }
        }
    }
    output::print(&out)?;
    outcome
}

/// What the family of a model says on opening it: what a user should know, or why it is refused though each
/// component is sound. None where no family takes it.
fn opened(
    folder: &ModelFolder,
    variant: Option<&str>,
) -> Option<std::result::Result<Vec<String>, String>> {
    let options = Options::new().with_some(&keys::VARIANT, variant.map(str::to_owned));
    let family = registry::family_of(folder, &options)?;
    let settings = OpenSettings {
        plan_only: true,
        ..models::settings(options)
    };
    let notes = match (family.image, family.text) {
        (Some(_), _) => registry::open_image(folder, &settings).map(|model| model.notes()),
        (None, Some(_)) => registry::open_text(folder, &settings).map(|_| Vec::new()),
        (None, None) => return None,
    };
    Some(notes.map_err(|refusal| Failure::from(refusal).to_string()))
}

/// A folder that is no model: its weights files, one by one.
fn loose_files(folder: &ModelFolder, arguments: &InspectArguments) -> Result {
    let ModelFolder::Disk(root) = folder else {
        return Err(Failure::failed(format!(
            "{} holds no model",
            folder.label()
        )));
    };
    let is_weights = |name: &String| {
        [".safetensors", ".pth", ".pt", ".bin"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    let files: Vec<PathBuf> = folder
        .list()
        .into_iter()
        .filter(is_weights)
        .map(|name| root.join(name))
        .collect();
    match &files[..] {
        [] => Err(Failure::failed(format!(
            "{} holds no model: there is no model_index.json, no config.json and no weights file",
            root.display()
        ))),
        [one] => file(one, arguments),
        several => {
            let list = |entry: &PathBuf| -> Value {
                let found = open_weights(entry)
                    .and_then(unwrapped)
                    .map_err(Failure::from)
                    .and_then(|source| identify::identify(&*source, &identify::metadata(entry)));
                json!({
                    "path": entry.display().to_string(),
                    "model": found.map(|found| found.name).unwrap_or_else(|failure| failure.to_string()),
                })
            };
            let entries: Vec<Value> = several.iter().map(list).collect();
            if arguments.json {
                return output::print_json(
                    &json!({"path": root.display().to_string(), "kind": "folder", "files": entries}),
                );
            }
            let rows: Vec<Vec<String>> = entries
                .iter()
                .map(|entry| vec![plain(&entry["path"]), plain(&entry["model"])])
                .collect();
            output::print(&text::table(&rows))
        }
    }
}

/// A JSON file that is no shard index.
fn configuration(path: &Path, as_json: bool) -> Result {
    let value = read_json(path, Limit::MODEL_FILE)?;
    let class = ["_class_name", "model_type", "tokenizer_class"]
        .iter()
        .find_map(|key| value.get(key)?.as_str());
    if as_json {
        return output::print_json(&json!({
            "path": path.display().to_string(), "kind": "configuration", "class": class, "content": value,
        }));
    }
    output::print(&format!(
        "{}: configuration of {}\n{value:#}",
        path.display(),
        class.unwrap_or("unknown class")
    ))
}

fn tensor_list(source: &dyn TensorSource) -> Value {
    let entry = |name: String| {
        let (dtype, shape) = source.info(&name)?;
        Some(json!({"name": name, "dtype": dtype.name(), "shape": shape}))
    };
    source.names().into_iter().filter_map(entry).collect()
}

fn tensor_table(source: &dyn TensorSource) -> String {
    let row = |name: String| {
        let (dtype, shape) = source.info(&name)?;
        Some(vec![
            format!("  {name}"),
            dtype.name().to_owned(),
            format!("{shape:?}"),
        ])
    };
    text::table(
        &source
            .names()
            .into_iter()
            .filter_map(row)
            .collect::<Vec<_>>(),
    )
}

/// A JSON value without the quotes of strings.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn shortened(value: &str) -> String {
    text::shown_within(value, 160)
}
