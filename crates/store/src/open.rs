//! Opening a weights file by what is in it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::impostor::{LOOKED_AT, impostor};
use crate::read::without_mark;
use crate::safetensors::MAX_HEADER_BYTES;
use crate::{Error, PickleFile, Result, SafetensorsFile, ShardedSource, TensorSource, pickle};

/// How many bytes of a file tell what it is.
pub(crate) const START: usize = LOOKED_AT;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Safetensors,
    Index,
    Pickle,
}

/// Formats of weights that brisk does not read, by their first bytes.
const FOREIGN: [(&[u8], &str); 7] = [
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
];

/// Opens safetensors, a shard index or a PyTorch checkpoint, told apart by their structure.
///
/// # Errors
/// Anything else, by name where it is known: Git LFS pointers, web pages, other programs' formats.
pub fn open_weights(path: &Path) -> Result<Arc<dyn TensorSource>> {
    Ok(open_weights_with_metadata(path)?.0)
}

/// As [`open_weights`], with the `__metadata__` table of a safetensors file; empty for the others.
///
/// # Errors
/// As [`open_weights`].
pub fn open_weights_with_metadata(
    path: &Path,
) -> Result<(Arc<dyn TensorSource>, BTreeMap<String, String>)> {
    let source: Arc<dyn TensorSource> = match format_of(path)? {
        Format::Safetensors => {
            let file = SafetensorsFile::open(path)?;
            let metadata = file.metadata().clone();
            return Ok((Arc::new(file), metadata));
        }
        Format::Index => Arc::new(ShardedSource::open(path)?),
        Format::Pickle => Arc::new(PickleFile::open(path)?),
    };
    Ok((source, BTreeMap::new()))
}

/// As [`open_weights`], for a file that an index names: it holds tensors itself.
pub(crate) fn open_shard(path: &Path) -> Result<Arc<dyn TensorSource>> {
    Ok(match format_of(path)? {
        Format::Safetensors => Arc::new(SafetensorsFile::open(path)?),
        Format::Pickle => Arc::new(PickleFile::open(path)?),
        Format::Index => return Err(index_as_shard(&path.display().to_string())),
    })
}

/// What is said of an index that another one (or it itself) names as a shard.
pub(crate) fn index_as_shard(label: &str) -> Error {
    Error::malformed(
        label,
        "this is an index or another JSON file; a shard must be safetensors or a PyTorch checkpoint",
    )
}

fn format_of(path: &Path) -> Result<Format> {
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
        .and_then(|file| file.take(START as u64).read_to_end(&mut start))
        .map_err(|error| Error::io("read", path, error))?;
    detect(&start, &path.display().to_string())
}

/// The format of a file that begins with `start` (its first [`START`] bytes, or all of it); `label` is its
/// name.
pub(crate) fn detect(start: &[u8], label: &str) -> Result<Format> {
    if let Some(what) = impostor(start) {
        return Err(Error::malformed(label, what));
    }
    // A header of the right form before anything else: its length may spell any other format's mark.
    // None of those has four zero bytes and an opening brace behind its mark.
    let header = start
        .first_chunk()
        .map(|length| u64::from_le_bytes(*length));
    if start.get(8) == Some(&b'{') && header.is_some_and(|length| length <= MAX_HEADER_BYTES) {
        return Ok(Format::Safetensors);
    }
    if start.starts_with(b"PK") || pickle::is_legacy(start) {
        return Ok(Format::Pickle);
    }
    if without_mark(start).trim_ascii_start().starts_with(b"{") {
        return Ok(Format::Index);
    }
    if let Some((_, what)) = FOREIGN.iter().find(|(mark, _)| start.starts_with(mark)) {
        return Err(Error::unsupported(
            label,
            format!(
                "this is {what}, which brisk does not read; expected safetensors, a shard index (JSON) \
                 or a PyTorch checkpoint"
            ),
        ));
    }
    // Damaged files: the reader of that format says what is wrong.
    let lower = label.to_ascii_lowercase();
    if lower.ends_with(".safetensors") {
        return Ok(Format::Safetensors);
    }
    if [".pth", ".pt", ".bin", ".ckpt"]
        .iter()
        .any(|extension| lower.ends_with(extension))
    {
        return Ok(Format::Pickle);
    }
    Err(Error::malformed(
        label,
        "not a weights file: expected safetensors, a shard index (JSON) or a PyTorch checkpoint",
    ))
}
