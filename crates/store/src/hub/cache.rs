//! The cache's layout: `models--owner--name/refs/<revision>` names a commit,
//! `snapshots/<commit>` holds its files.

use std::path::{Path, PathBuf};

use super::HubOptions;
use crate::read::Limit;
use crate::{ModelFolder, ShardedSource};

/// The model's own folder in the cache; the id has been checked.
pub(super) fn model_folder(id: &str, options: &HubOptions) -> PathBuf {
    options
        .cache
        .join(format!("models--{}", id.replace('/', "--")))
}

/// A commit's name, safe as a folder name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `x.safetensors.index.json`, `x.bin.index.fp16.json`.
pub(super) fn is_index(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".json")
        && (name.contains(".safetensors.index.") || name.contains(".bin.index."))
}

/// The cached snapshot of the wanted revision.
pub(super) fn find(id: &str, options: &HubOptions) -> Option<PathBuf> {
    let folder = model_folder(id, options);
    let commit = if is_commit(&options.revision) {
        options.revision.clone()
    } else {
        let reference = folder.join("refs").join(&options.revision);
        let bytes = crate::read::read(&reference, Limit::new("reference", 1024)).ok()?;
        String::from_utf8(bytes).ok()?.trim().to_owned()
    };
    if !is_commit(&commit) {
        return None;
    }
    Some(folder.join("snapshots").join(commit)).filter(|snapshot| snapshot.is_dir())
}

/// What an incomplete snapshot lacks; other tools fetch single files, so being there is not enough.
pub(super) fn lacks(snapshot: &Path, variant: Option<&str>) -> Option<String> {
    let folder = ModelFolder::Disk(snapshot.to_owned());
    let files = folder.list();
    let is_weights = |file: &str| {
        [".safetensors", ".bin", ".pth", ".pt"]
            .iter()
            .any(|ending| file.ends_with(ending))
    };
    if !files.iter().any(|file| is_weights(file)) {
        return Some("has no weights".to_owned());
    }
    for index in files.iter().filter(|file| is_index(file)) {
        let other = [".fp16.", ".bf16.", ".fp32."]
            .iter()
            .any(|mark| index.contains(mark));
        if other && !variant.is_some_and(|variant| index.contains(&format!(".{variant}."))) {
            continue; // the index of a variant nobody asked for may come without its shards
        }
        let beside = index
            .rsplit_once('/')
            .map_or(String::new(), |(sub, _)| format!("{sub}/"));
        let safer = |file: &String| {
            file.strip_prefix(&beside)
                .is_some_and(|rest| !rest.contains('/') && rest.ends_with(".safetensors"))
        };
        if index.contains(".bin.index.") && files.iter().any(safer) {
            continue; // .bin shards are not fetched where there is safetensors
        }
        let places = folder
            .read(index)
            .ok()
            .and_then(|bytes| ShardedSource::parse_index(&bytes, index).ok());
        let Some(places) = places else {
            return Some(format!("{index} cannot be read"));
        };
        for shard in places.values() {
            if !folder.exists(&format!("{beside}{shard}")) {
                return Some(format!("lacks {beside}{shard}"));
            }
        }
    }
    if !folder.exists("model_index.json") {
        return None;
    }
    let Ok(serde_json::Value::Object(index)) = folder.read_json("model_index.json") else {
        return Some("model_index.json cannot be read".to_owned());
    };
    for (component, classes) in &index {
        let named = classes.as_array().is_some_and(|classes| {
            classes.len() == 2 && classes.iter().all(serde_json::Value::is_string)
        });
        if component.starts_with('_') || !named {
            continue;
        }
        let inside: Vec<&str> = files
            .iter()
            .filter_map(|file| file.strip_prefix(component.as_str())?.strip_prefix('/'))
            .collect();
        if inside.is_empty() {
            return Some(format!("lacks the folder {component}"));
        }
        // Schedulers and tokenizers have configurations of other names and no weights.
        if inside.contains(&"config.json") && !inside.iter().any(|file| is_weights(file)) {
            return Some(format!("lacks the weights of {component}"));
        }
    }
    None
}
