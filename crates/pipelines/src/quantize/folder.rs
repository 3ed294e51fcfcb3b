//! The folder that a quantized model is written to.

use std::fs::File;
use std::path::{Path, PathBuf};

use brisk_store::output::TemporaryFolder;
use brisk_store::{ModelFolder, check_output, write_atomic, write_atomic_with};
use serde_json::Value;

use super::{Component, Layout, QuantizeRequest, Quantized, WithSource};
use crate::error::{Error, Result};

/// Files below this size are copied, so that the result can be edited without changing its source.
const LINKED_FROM: u64 = 1 << 20;

/// Where a component is written.
pub(super) enum Target {
    /// One file.
    File(PathBuf),
    /// A folder, with the name of its weights' file.
    Folder(PathBuf, &'static str),
}

impl Target {
    /// Of a component; its folder is made.
    pub fn of(request: &QuantizeRequest, component: &Component) -> Result<Self> {
        if request.is_single_file() {
            return Ok(Self::File(request.output.clone()));
        }
        let folder = request.output.join(component.name);
        make_folder(&folder)?;
        Ok(Self::Folder(folder, component.file))
    }

    /// File of the weights.
    pub fn weights(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Folder(folder, name) => folder.join(name),
        }
    }

    /// Writes the configuration, where there is a place for it.
    pub fn write_config(&self, config: &Value) -> Result<()> {
        if let Self::Folder(folder, _) = self {
            write_json(&folder.join("config.json"), config)?;
        }
        Ok(())
    }

    /// Bytes of the weights' file.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(self.weights()).map_or(0, |metadata| metadata.len())
    }
}

/// Refuses to write over what is read.
pub(super) fn check_places(
    request: &QuantizeRequest,
    folder: &ModelFolder,
    more: &[PathBuf],
) -> Result<()> {
    let mut inputs = Vec::new();
    if let ModelFolder::Disk(model) = folder {
        inputs.push(model.as_path());
        check_output(&request.output, &inputs)?;
    }
    inputs.extend(more.iter().map(PathBuf::as_path));
    // It is removed in the end.
    check_output(&request.work_folder(), &inputs)?;
    Ok(())
}

/// Puts everything of the model's folder but what is quantized into the output, where that is a folder.
pub(super) fn prepare(
    folder: &ModelFolder,
    request: &QuantizeRequest,
    components: &[WithSource],
) -> Result<()> {
    if request.is_single_file() {
        return Ok(());
    }
    for name in folder.list() {
        let replaced = components
            .iter()
            .any(|(component, _)| is_replaced(component, &name));
        if replaced {
            continue;
        }
        let target = request.output.join(&name);
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

/// Whether a file of the model's folder is written anew with a component.
fn is_replaced(component: &Component, name: &str) -> bool {
    let beginning = format!("{}/", component.name);
    let Some(name) = name.strip_prefix(&beginning) else {
        return false;
    };
    let endings = [".safetensors", ".bin", ".index.json"];
    match component.layout {
        Layout::SvdQuant(_) => true,
        // A tokenizer may lie there too.
        Layout::Awq(_) => name == "config.json" || endings.iter().any(|end| name.ends_with(end)),
    }
}

/// Writes how the model came out into its folder.
pub(super) fn write_report(request: &QuantizeRequest, done: &Quantized) -> Result<()> {
    let Some(first) = done.components.first() else {
        return Ok(());
    };
    let folder = request.output.join(first.name);
    write_json(&folder.join("quantization.json"), &done.document(request))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(write_atomic(path, format!("{value:#}\n").as_bytes())?)
}

pub(super) fn make_folder(path: &Path) -> Result<()> {
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
