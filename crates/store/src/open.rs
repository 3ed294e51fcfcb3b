//! Opening a weights file by what is in it.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::safetensors::MAX_HEADER_BYTES;
use crate::{Error, PickleFile, Result, SafetensorsFile, ShardedSource, TensorSource, pickle};

#[derive(Debug, PartialEq)]
pub(crate) enum Format {
    Safetensors,
    Index,
    Pickle,
}

/// Opens safetensors, a shard index or a PyTorch checkpoint, told apart by their first bytes.
pub fn open_weights(path: &Path) -> Result<Arc<dyn TensorSource>> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
    if metadata.is_dir() {
        return Err(Error::Invalid(format!(
            "{} is a folder, expected a weights file (.safetensors, .index.json or .pth)",
            path.display()
        )));
    }
    if !metadata.is_file() {
        return Err(Error::Invalid(format!(
            "{} is not a regular file",
            path.display()
        )));
    }
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .map_err(|error| Error::io("read", path, error))?;
    let label = path.display().to_string();
    Ok(match detect(&start, &label)? {
        Format::Safetensors => Arc::new(SafetensorsFile::open(path)?),
        Format::Index => Arc::new(ShardedSource::open(path)?),
        Format::Pickle => Arc::new(PickleFile::open(path)?),
    })
}

/// The format of a file that starts like this; `label` is its name.
pub(crate) fn detect(start: &[u8], label: &str) -> Result<Format> {
    if start.starts_with(b"PK") || pickle::is_legacy(start) {
        return Ok(Format::Pickle);
    }
    let header = start
        .first_chunk()
        .map(|length| u64::from_le_bytes(*length));
    if start.get(8) == Some(&b'{') && header.is_some_and(|length| length <= MAX_HEADER_BYTES) {
        return Ok(Format::Safetensors);
    }
    if start.trim_ascii_start().starts_with(b"{") {
        return Ok(Format::Index);
    }
    // Damaged files: the reader of that format says what is wrong.
    let lower = label.to_ascii_lowercase();
    if lower.ends_with(".safetensors") {
        return Ok(Format::Safetensors);
    }
    if start.starts_with(b"version https:") {
        return Err(Error::malformed(
            label,
            "this is a Git LFS pointer, not the file itself; run `git lfs pull`",
        ));
    }
    if [".pth", ".pt", ".bin", ".ckpt"]
        .iter()
        .any(|extension| lower.ends_with(extension))
    {
        return Ok(Format::Pickle);
    }
    Err(Error::malformed(
        label,
        "not a weights file: expected safetensors, a shard index (JSON) or a PyTorch zip checkpoint",
    ))
}
