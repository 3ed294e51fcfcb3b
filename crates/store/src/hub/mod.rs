//! Finding a model by its path or its Hugging Face id.
//!
//! A path that exists is used as it is. Anything else must look like `owner/name` or
//! `owner/name@revision`; it is looked up in the local cache first, as the Python tools leave it, and
//! downloaded only when it is not there in full.

mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
mod id;
mod options;
#[cfg(feature = "hub")]
mod select;
#[cfg(feature = "hub")]
mod space;

use std::path::{Path, PathBuf};

use id::{ModelId, is_plain};
pub use options::HubOptions;

use crate::{Error, ModelFolder, Result};

/// Told how a download goes. Every method has a default that does nothing.
pub trait HubProgress: Sync {
    /// A download begins: number of files and their bytes together, where the server says so.
    fn begin(&self, _model: &str, _files: usize, _bytes: Option<u64>) {}
    /// A file begins.
    fn file(&self, _name: &str, _bytes: Option<u64>) {}
    /// So many more bytes are there (those found from an earlier try included).
    fn advance(&self, _bytes: u64) {}
    /// So many bytes turned out to be of no use and come again.
    fn retract(&self, _bytes: u64) {}
    /// Everything is there.
    fn end(&self) {}
    /// Something that a person should know: what is waited for, what is used instead.
    fn note(&self, _text: &str) {}
    /// Whether to stop; what has arrived is kept.
    fn stopped(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl HubProgress for NoProgress {}

/// The folder (or file) of a model, downloaded if need be. `id_or_path` is a path, `owner/name`, or
/// `owner/name@revision` with a branch, tag or commit, which goes before that of `options`; either may
/// be followed by `/file.safetensors`.
///
/// Where the cache has no such revision and the hub cannot be asked, the only complete snapshot stands
/// in for the default branch; `progress` is told.
///
/// # Errors
/// What is neither; what is not in the cache while nothing may be downloaded; what the hub refuses.
pub fn resolve(
    id_or_path: &str,
    options: &HubOptions,
    progress: &dyn HubProgress,
) -> Result<PathBuf> {
    let path = Path::new(id_or_path);
    if !id_or_path.is_empty() && path.exists() {
        return Ok(path.to_owned());
    }
    let id = ModelId::parse_file(id_or_path, &options.revision)?;
    let folder = resolve_id(&id, options, progress)?;
    Ok(match &id.file {
        Some(file) => folder.join(file),
        None => folder,
    })
}

/// One file of weights, such as a LoRA's: a path, `owner/name[@revision]/file.safetensors`, or
/// `owner/name[@revision]` of a repository that holds a single one.
///
/// # Errors
/// As [`resolve`], and a repository or folder with several weights files, which are listed.
pub fn resolve_weights(
    id_or_path: &str,
    options: &HubOptions,
    progress: &dyn HubProgress,
) -> Result<PathBuf> {
    let path = Path::new(id_or_path);
    if !id_or_path.is_empty() && path.exists() {
        return match path.is_dir() {
            true => only_weights(path, id_or_path),
            false => Ok(path.to_owned()),
        };
    }
    let id = ModelId::parse_file(id_or_path, &options.revision)?;
    match &id.file {
        Some(file) => Ok(resolve_id(&id, options, progress)?.join(file)),
        None => only_weights(&resolve_id(&id, options, progress)?, id_or_path),
    }
}

/// Fetches a model ahead of its use: asks the hub also when the cache holds the revision, so that a branch
/// that moved is followed. Files that are there already stay.
///
/// # Errors
/// What is not an id; what the hub refuses; that nothing may be downloaded.
pub fn pull(id: &str, options: &HubOptions, progress: &dyn HubProgress) -> Result<PathBuf> {
    let id = ModelId::parse_file(id, &options.revision)?;
    check_variant(options)?;
    if options.offline {
        return Err(Error::Hub(format!(
            "{id} cannot be fetched: HF_HUB_OFFLINE forbids downloads; unset it"
        )));
    }
    let folder = fetch(&id, options, progress, None)?;
    Ok(match &id.file {
        Some(file) => folder.join(file),
        None => folder,
    })
}

/// The weights file of a folder that holds one; safetensors goes before pickles.
fn only_weights(folder: &Path, asked: &str) -> Result<PathBuf> {
    let files = ModelFolder::Disk(folder.to_owned()).list();
    match crate::folder::only_weights(files) {
        Ok(one) => Ok(folder.join(one)),
        Err(none) if none.is_empty() => {
            Err(Error::missing(asked, "there is no weights file in it"))
        }
        Err(several) => {
            let shown: Vec<&str> = several.iter().take(12).map(String::as_str).collect();
            Err(Error::Invalid(format!(
                "{asked} holds {} weights files ({}{}); name one of them, as {asked}/{}",
                several.len(),
                shown.join(", "),
                if several.len() > shown.len() {
                    ", …"
                } else {
                    ""
                },
                several[0]
            )))
        }
    }
}

/// A checked id's snapshot, from the cache or the hub.
fn resolve_id(id: &ModelId, options: &HubOptions, progress: &dyn HubProgress) -> Result<PathBuf> {
    check_variant(options)?;
    let lacking = match cached(id, options) {
        Ok(folder) => return Ok(folder),
        Err(lacking) => lacking,
    };
    if options.offline {
        return substitute(id, options, progress)?.ok_or_else(|| {
            Error::Hub(format!(
                "{id} {lacking}, and nothing is downloaded now (HF_HUB_OFFLINE is set, or the command only \
                 looks); `brisk models pull {id}{}` fetches it, or give the path of a file or folder",
                id.file.as_ref().map_or(String::new(), |file| format!("/{file}"))
            ))
        });
    }
    fetch(id, options, progress, Some(&lacking))
}

fn check_variant(options: &HubOptions) -> Result<()> {
    match &options.variant {
        Some(variant) if !is_plain(variant) => Err(Error::Invalid(format!(
            "{variant:?} is not the name of a variant"
        ))),
        _ => Ok(()),
    }
}

/// The snapshot in the cache, or what it lacks.
fn cached(id: &ModelId, options: &HubOptions) -> Result<PathBuf, String> {
    let Some(folder) = cache::find(id, &options.cache) else {
        return Err(format!(
            "is not in the cache at {}",
            options.cache.display()
        ));
    };
    let lacking = match &id.file {
        Some(file) if folder.join(file).is_file() => None,
        Some(file) => Some(format!("lacks {file}")),
        None => cache::lacks(&folder, options.variant.as_deref()),
    };
    match lacking {
        None => Ok(folder),
        Some(lacking) => Err(format!(
            "is in the cache at {} but {lacking}",
            folder.display()
        )),
    }
}

/// What the cache holds instead of a default branch that it does not know: its only complete snapshot.
fn substitute(
    id: &ModelId,
    options: &HubOptions,
    progress: &dyn HubProgress,
) -> Result<Option<PathBuf>> {
    if !id.is_default_revision() || id.file.is_some() {
        return Ok(None);
    }
    let complete = cache::complete(id, &options.cache, options.variant.as_deref());
    match &complete[..] {
        [] => Ok(None),
        [one] => {
            progress.note(&format!(
                "{id}: the cache does not know the newest commit, using {}",
                one.display()
            ));
            Ok(Some(one.clone()))
        }
        several => {
            let commits: Vec<String> = several
                .iter()
                .filter_map(|folder| folder.file_name())
                .map(|commit| format!("{id}@{}", commit.to_string_lossy()))
                .collect();
            Err(Error::Hub(format!(
                "the cache at {} does not know which commit {id} means, and holds {}; name one of them",
                options.cache.display(),
                commits.join(", ")
            )))
        }
    }
}

/// Asks the hub, because the cache lacks something or, where it lacks nothing, for what is newest.
#[cfg(feature = "hub")]
fn fetch(
    id: &ModelId,
    options: &HubOptions,
    progress: &dyn HubProgress,
    lacking: Option<&str>,
) -> Result<PathBuf> {
    let newest = lacking.is_none();
    match download::download(id, options, progress, newest) {
        Ok(folder) => Ok(folder),
        Err(client::Failure::Final(error)) => Err(error),
        // Without the hub a snapshot at hand is better than none.
        Err(client::Failure::Lost(error)) => match substitute(id, options, progress) {
            Ok(Some(folder)) if !newest => Ok(folder),
            _ => Err(error),
        },
    }
}

#[cfg(not(feature = "hub"))]
fn fetch(
    id: &ModelId,
    _options: &HubOptions,
    _progress: &dyn HubProgress,
    lacking: Option<&str>,
) -> Result<PathBuf> {
    let lacking = lacking.unwrap_or("cannot be fetched");
    Err(Error::Hub(format!(
        "{id} {lacking}, and this build of brisk cannot download (feature \"hub\" is off); \
         give the path of a model's folder"
    )))
}

#[cfg(test)]
mod tests;
