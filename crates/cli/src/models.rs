//! From what `--model` says to a model's files.

use std::path::{Path, PathBuf};

use brisk_nn::Quantisation;
use brisk_store::ModelFolder;
use brisk_store::hub::{self, HubOptions};

use crate::box_model::{self, BoxModel};
use crate::failure::{Failure, Result};
use crate::progress::Download;

/// A model in the box, or what a build says that has none.
pub fn in_the_box(model: &BoxModel) -> Result<ModelFolder> {
    model.folder().ok_or_else(|| {
        Failure::failed(format!(
            "this build has no model in the box called {}; give one with --model FOLDER or --model OWNER/NAME \
             (`brisk models` lists what brisk can load)",
            model.name
        ))
    })
}

/// A model by folder, hub id or the name of one in the box; by default the one that draws.
pub fn open(name: Option<&str>, variant: Option<&str>) -> Result<ModelFolder> {
    open_or(name, variant, &box_model::IMAGE)
}

/// As [`open`], by default the one that writes.
pub fn open_text(name: Option<&str>, variant: Option<&str>) -> Result<ModelFolder> {
    open_or(name, variant, &box_model::TEXT)
}

fn open_or(name: Option<&str>, variant: Option<&str>, default: &BoxModel) -> Result<ModelFolder> {
    match (name, name.and_then(box_model::named)) {
        (None, _) => in_the_box(default),
        (_, Some(model)) => in_the_box(model),
        (Some(name), None) => {
            let path = resolve(name, variant, false)?;
            if path.is_file() {
                return Err(Failure::usage(format!(
                    "--model {name} is a file, expected a model's folder or hub id; \
                     a transformer in one file goes to --transformer"
                )));
            }
            Ok(ModelFolder::Disk(path))
        }
    }
}

/// The path of a file, folder or hub model; `local` forbids a download.
pub fn resolve(name: &str, variant: Option<&str>, local: bool) -> Result<PathBuf> {
    let mut options = HubOptions::from_env();
    options.offline |= local;
    options.variant = variant.map(str::to_owned);
    Ok(hub::resolve(name, &options, &Download::default())?)
}

/// One model of the local hub cache.
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
            let bytes = size_of(&folder);
            Some(Cached { id, folder, bytes })
        })
        .collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models
}

/// Bytes of all files of a folder; links count as what they point to.
pub fn size_of(folder: &Path) -> u64 {
    let files = ModelFolder::Disk(folder.to_owned()).list();
    files
        .iter()
        .filter_map(|file| std::fs::metadata(folder.join(file)).ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// How weights are quantised while they are loaded, as `flag` names it.
pub fn quantisation(flag: &str, name: &str) -> Result<Quantisation> {
    Quantisation::from_name(name)
        .map_err(|_| Failure::usage(format!("{flag} {name}: expected none, 8bit or 4bit")))
}
