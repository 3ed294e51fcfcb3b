//! From a model's name to its folder: one in the box, a folder, or a model of the hub.

use std::path::{Path, PathBuf};

use brisk_pipelines::{Error, Result, ResultKind};
use brisk_store::ModelFolder;
use brisk_store::hub::{self, HubOptions, HubProgress};

use crate::BoxModel;

/// A model that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name that finds it again.
    pub name: String,
    /// Its files.
    pub folder: ModelFolder,
}

/// A model by folder, hub id or the name of one in the box; by default the one in the box that gives
/// `kind`. A model of masks may be a single weights file. A hub id is looked up in the local cache first, then downloaded.
///
/// # Errors
/// No such model, a file instead of a folder, or a hub that cannot be asked.
pub fn find(
    name: Option<&str>,
    variant: Option<&str>,
    kind: ResultKind,
    progress: &dyn HubProgress,
) -> Result<Found> {
    let Some(name) = name else {
        let model = BoxModel::default_of(kind).ok_or_else(|| {
            Error::request(
                "model",
                format!(
                    "no model in the box is the default for {}; name one",
                    kind.name()
                ),
            )
        })?;
        return in_the_box(model);
    };
    if let Some(model) = BoxModel::named(name) {
        return in_the_box(model);
    }
    let path = find_path(name, variant, false, progress)?;
    if path.is_file() && kind != ResultKind::Masks {
        return Err(Error::request(
            "model",
            format!(
                "{name} is a file, expected a model's folder or hub id; a transformer in one file goes \
                 to `transformer`"
            ),
        ));
    }
    Ok(Found {
        name: name.to_owned(),
        folder: ModelFolder::Disk(path),
    })
}

/// The path of a file, folder or hub model; `local` forbids a download.
///
/// # Errors
/// As [`find`].
pub fn find_path(
    name: &str,
    variant: Option<&str>,
    local: bool,
    progress: &dyn HubProgress,
) -> Result<PathBuf> {
    let mut options = HubOptions::from_env();
    options.offline |= local;
    options.variant = variant.map(str::to_owned);
    Ok(hub::resolve(name, &options, progress)?)
}

/// The path of a weights file or its folder on disk, or of `owner/name[@revision][/FILE]` of the hub: in the
/// local cache, else downloaded.
///
/// # Errors
/// No such file, a repository with several of which none is named, or a hub that cannot be asked.
pub fn find_file(path: &Path, progress: &dyn HubProgress) -> Result<PathBuf> {
    match path.to_str() {
        Some(name) if !path.exists() => Ok(hub::resolve_weights(
            name,
            &HubOptions::from_env(),
            progress,
        )?),
        _ => Ok(path.to_owned()),
    }
}

fn in_the_box(model: &BoxModel) -> Result<Found> {
    let folder = model.folder().ok_or_else(|| {
        Error::request(
            "model",
            format!(
                "this build has no model in the box called {}; give a folder or a hub id",
                model.name
            ),
        )
    })?;
    Ok(Found {
        name: model.name.to_owned(),
        folder,
    })
}

/// One model of the local hub cache.
#[derive(Debug, Clone)]
pub struct Cached {
    /// `owner/name`.
    pub id: String,
    /// The newest snapshot.
    pub folder: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Models in a hub cache that have a snapshot, by name.
pub fn cached(cache: &Path) -> Vec<Cached> {
    let Ok(entries) = std::fs::read_dir(cache) else {
        return Vec::new();
    };
    let mut models: Vec<Cached> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_prefix("models--")?.replacen("--", "/", 1);
            let snapshots = std::fs::read_dir(entry.path().join("snapshots")).ok()?;
            let newest = snapshots
                .flatten()
                .filter(|snapshot| snapshot.path().is_dir())
                .max_by_key(|snapshot| {
                    snapshot
                        .metadata()
                        .and_then(|metadata| metadata.modified())
                        .ok()
                })?;
            let folder = newest.path();
            let bytes = folder_bytes(&folder);
            Some(Cached { id, folder, bytes })
        })
        .collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models
}

/// Bytes of all files of a folder; links count as what they point to.
pub fn folder_bytes(folder: &Path) -> u64 {
    let folder = ModelFolder::Disk(folder.to_owned());
    let files = folder.list();
    files.iter().filter_map(|file| folder.size(file)).sum()
}
