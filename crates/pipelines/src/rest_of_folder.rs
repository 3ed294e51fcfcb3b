//! Everything of a model's folder but what is written anew.

use std::fs::File;
use std::path::Path;

use brisk_store::output::TemporaryFolder;
use brisk_store::{ModelFolder, write_atomic, write_atomic_with};

use crate::error::{Error, Result};

/// Files below this size are copied, so that the result can be edited without changing its source.
const LINKED_FROM: u64 = 1 << 20;

/// Puts the files of a model's folder into `output`, but those that `replaced` says are written anew. Large weights get
/// a second name there where the disk allows it.
///
/// # Errors
/// Files that cannot be read or written.
pub fn copy_rest(
    folder: &ModelFolder,
    output: &Path,
    replaced: &dyn Fn(&str) -> bool,
) -> Result<()> {
    for name in folder.list() {
        if replaced(&name) {
            continue;
        }
        let target = output.join(&name);
        if let Some(parent) = target.parent() {
            make_folder(parent)?;
        }
        match folder {
            ModelFolder::Disk(path) => link_or_copy(&path.join(&name), &target)?,
            ModelFolder::Embedded { .. } => write_atomic(&target, &folder.read(&name)?)?,
        }
    }
    Ok(())
}

pub(crate) fn make_folder(path: &Path) -> Result<()> {
    let failed = |error| {
        Error::folder(
            path.display().to_string(),
            format!("cannot make it: {error}"),
        )
    };
    std::fs::create_dir_all(path).map_err(failed)
}

/// Gives a file a second name where it is large and holds weights, which nobody edits, and copies it
/// elsewhere. What the second name stood for before is replaced when the new file is whole.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot copy it to {}: {error}", to.display());
        Error::folder(from.display().to_string(), message)
    };
    let real = std::fs::canonicalize(from).map_err(failed)?;
    let is_weights = ["safetensors", "bin", "pth", "pt"]
        .iter()
        .any(|end| from.extension().is_some_and(|found| found == *end));
    let size = std::fs::metadata(&real).map_err(failed)?.len();
    if is_weights && size >= LINKED_FROM {
        let room = TemporaryFolder::create(to)?;
        let trial = room.path().join("link");
        if std::fs::hard_link(&real, &trial).is_ok() {
            return std::fs::rename(&trial, to).map_err(failed);
        }
    }
    let mut file = File::open(&real).map_err(failed)?;
    Ok(write_atomic_with(to, |out| {
        std::io::copy(&mut file, out).map(drop)
    })?)
}
