//! The folder of a run that is not finished: what was asked for, the collected rows, and finished parts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use brisk_store::output::FolderLock;
use brisk_store::{
    Fingerprint, Limit, OutTensor, SafetensorsFile, TensorSource, read_text, write_atomic,
    write_safetensors,
};
use serde_json::{Value, json};

use super::{PartReport, QuantizeRequest};
use crate::error::{Error, Result};
use crate::events::{Control, Event};
use crate::rest_of_folder::make_folder;

/// Finished parts of one request, which one process at a time works at.
pub(super) struct WorkFolder {
    path: PathBuf,
    lock: FolderLock,
}

impl WorkFolder {
    /// Makes it, or goes on with that of the same request.
    ///
    /// # Errors
    /// Parts of a run with other options, or a run that goes on.
    pub fn open(request: &QuantizeRequest, control: &Control) -> Result<Self> {
        let path = request.work_folder();
        make_folder(&path)?;
        let lock = FolderLock::take(&path)?;
        let run = path.join("run.json");
        let now = identity(request);
        match read_text(&run, Limit::SETTINGS) {
            Ok(text) if serde_json::from_str::<Value>(&text).is_ok_and(|before| before == now) => {
                control.send(Event::Log(format!("going on with {}", path.display())));
            }
            Ok(_) => {
                return Err(Error::folder(
                    path.display().to_string(),
                    "holds parts of a run with other options; repeat those, or delete the folder",
                ));
            }
            Err(_) => write_atomic(&run, format!("{now:#}\n").as_bytes())?,
        }
        Ok(Self { path, lock })
    }

    /// File of the rows that were collected for a component.
    pub fn rows_path(&self, component: &str) -> PathBuf {
        self.path
            .join(format!("calibration-{component}.safetensors"))
    }

    /// Whether rows were collected.
    pub fn has_rows(&self, component: &str) -> bool {
        self.rows_path(component).is_file()
    }

    /// The rows that were collected.
    pub fn rows(&self, component: &str) -> Result<SafetensorsFile> {
        Ok(SafetensorsFile::open(&self.rows_path(component))?)
    }

    fn part_path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.safetensors"))
    }

    /// The report of a part that an earlier run finished, for layer `layer`; a damaged file counts as none.
    pub fn finished(&self, name: &str, layer: &str) -> Option<PartReport> {
        let path = self.part_path(name);
        if !path.is_file() {
            return None;
        }
        let file = SafetensorsFile::open(&path).ok()?;
        let report = serde_json::from_str(file.metadata().get("report")?).ok()?;
        PartReport::read(layer, &report)
    }

    /// Writes a finished part, with its report among the file's metadata.
    pub fn keep(&self, name: &str, tensors: &[OutTensor], report: &PartReport) -> Result<()> {
        let metadata = BTreeMap::from([("report".to_owned(), report.stored().to_string())]);
        Ok(write_safetensors(
            &self.part_path(name),
            tensors,
            &metadata,
        )?)
    }

    /// A finished part.
    pub fn part(&self, name: &str) -> Result<SafetensorsFile> {
        Ok(SafetensorsFile::open(&self.part_path(name))?)
    }

    /// Removes it; what cannot be removed stays.
    pub fn remove(self) {
        // Not all systems remove what is locked.
        drop(self.lock);
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What parts depend on.
fn identity(request: &QuantizeRequest) -> Value {
    let (settings, calibration) = (&request.settings, &request.calibration);
    let mut pictures = Fingerprint::default();
    for picture in &calibration.pictures {
        pictures.add(&(picture.width as u64).to_le_bytes());
        pictures.add(&picture.pixels);
    }
    json!({
        "model": request.model, "variant": request.variant, "method": settings.method.name(),
        "rank": settings.rank, "grids": settings.grids, "iterations": settings.iterations,
        "svd": format!("{:?}", settings.solver), "activations": settings.activation_most,
        "awq": request.awq.is_some(), "rows": calibration.rows, "steps": calibration.steps,
        "size": calibration.size, "prompts": calibration.prompts,
        "pictures": pictures.text(),
    })
}

/// The rows that were collected of a layer's input.
pub(super) fn rows_of(rows: &SafetensorsFile, layer: &str, width: usize) -> Result<Vec<f32>> {
    let wrong = |problem: String| Error::folder(rows.origin(layer), problem);
    let found = rows.view(layer)?.ok_or_else(|| {
        wrong(format!(
            "no calibration rows of {layer}; delete the file to collect them again"
        ))
    })?;
    if found.shape.get(1) != Some(&width) {
        return Err(wrong(format!(
            "rows of {layer} have shape {:?}, expected {width} columns",
            found.shape
        )));
    }
    Ok(found.to_f32()?)
}

/// The `count` values of a stored tensor.
pub(super) fn values(source: &dyn TensorSource, name: &str, count: usize) -> Result<Vec<f32>> {
    let wrong = |problem: String| Error::folder(source.origin(name), problem);
    let view = source.view(name)?;
    let view = view.ok_or_else(|| wrong(format!("tensor {name:?} is missing")))?;
    let values = view.to_f32()?;
    if values.len() != count {
        return Err(wrong(format!(
            "tensor {name:?} has shape {:?}, expected {count} values",
            view.shape
        )));
    }
    source.forget(name);
    Ok(values)
}
