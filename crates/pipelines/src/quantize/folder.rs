//! The folder that a quantized model is written to.

use std::path::{Path, PathBuf};

use brisk_store::{ModelFolder, check_output, write_atomic};
use serde_json::Value;

use super::{Component, Layout, QuantizeRequest, Quantized, WithSource};
use crate::error::Result;
use crate::rest_of_folder::{copy_rest, make_folder};

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
    copy_rest(folder, &request.output, &|name| {
        components
            .iter()
            .any(|(component, _)| is_replaced(component, name))
    })
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
