//! The cache's layout: `models--owner--name/refs/<revision>` names a commit,
//! `snapshots/<commit>` holds its files, perhaps as links into `blobs/`.

use std::path::{Path, PathBuf};

use super::id::{ModelId, is_commit, is_short_commit};
use crate::folder::is_weights;
use crate::read::{Limit, read_text};
use crate::{ModelFolder, ShardedSource};

/// The model's own folder in the cache.
pub(super) fn model_folder(id: &ModelId, cache: &Path) -> PathBuf {
    cache.join(format!("models--{}", id.name.replace('/', "--")))
}

/// `x.safetensors.index.json`, `x.bin.index.fp16.json`.
pub(super) fn is_index(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".json")
        && (name.contains(".safetensors.index.") || name.contains(".bin.index."))
}

/// The cached snapshot of the wanted revision.
pub(super) fn find(id: &ModelId, cache: &Path) -> Option<PathBuf> {
    let snapshots = model_folder(id, cache).join("snapshots");
    let commit = commit_of(id, cache).or_else(|| {
        // The tools write no reference for a commit; its beginning is enough where it names one.
        let mut named = commits(id, cache);
        named.retain(|commit| is_short_commit(&id.revision) && commit.starts_with(&id.revision));
        match &named[..] {
            [one] => Some(one.clone()),
            _ => None,
        }
    })?;
    Some(snapshots.join(commit)).filter(|snapshot| snapshot.is_dir())
}

/// The commit that a revision means here.
fn commit_of(id: &ModelId, cache: &Path) -> Option<String> {
    if is_commit(&id.revision) {
        return Some(id.revision.clone());
    }
    let reference = model_folder(id, cache).join("refs").join(&id.revision);
    let text = read_text(&reference, Limit::new("reference", 1024)).ok()?;
    Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
}

/// Commits that have a snapshot, sorted.
fn commits(id: &ModelId, cache: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(model_folder(id, cache).join("snapshots"));
    let mut commits: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_commit(name))
        .collect();
    commits.sort();
    commits
}

/// Snapshots that lack nothing, whatever refers to them.
pub(super) fn complete(id: &ModelId, cache: &Path, variant: Option<&str>) -> Vec<PathBuf> {
    let snapshots = model_folder(id, cache).join("snapshots");
    let folders = commits(id, cache)
        .into_iter()
        .map(|commit| snapshots.join(commit));
    folders
        .filter(|snapshot| lacks(snapshot, variant).is_none())
        .collect()
}

/// What an incomplete snapshot lacks; other tools fetch single files, so being there is not enough.
pub(super) fn lacks(snapshot: &Path, variant: Option<&str>) -> Option<String> {
    let folder = ModelFolder::Disk(snapshot.to_owned());
    let files = folder.list();
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
