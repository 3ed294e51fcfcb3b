//! Writing: to a temporary name in the same folder, then renamed. Nothing half-written stays behind.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::dtype::byte_count;
use crate::output::Temporary;
use crate::{Dtype, Error, Result, TensorSource};

/// One tensor to write.
#[derive(Clone, Debug)]
pub struct OutTensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major little-endian bytes.
    pub data: Cow<'a, [u8]>,
}

impl<'a> OutTensor<'a> {
    /// A stored tensor, to be written elsewhere as it is; none where the source has none of this name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn stored(source: &'a dyn TensorSource, name: String) -> Result<Option<Self>> {
        Ok(source.view(&name)?.map(|view| Self {
            name,
            dtype: view.dtype,
            shape: view.shape,
            data: view.data,
        }))
    }
}

/// Writes a file whole or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// Writes a file whole or not at all, from a closure that writes its bytes.
pub fn write_atomic_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    // A link stays a link: its target is what gets replaced.
    let resolved = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => std::fs::canonicalize(path)
            .map_err(|error| Error::io("follow the link", path, error))?,
        _ => path.to_owned(),
    };
    match std::fs::metadata(&resolved) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Error::Invalid(format!(
                "cannot write {}: it is a folder",
                path.display()
            )));
        }
        Ok(metadata) if !metadata.is_file() => {
            // A device or a pipe (/dev/null): renaming over it would replace the device itself.
            let fail = |error| Error::io("write", path, error);
            let mut file = OpenOptions::new()
                .write(true)
                .open(&resolved)
                .map_err(fail)?;
            return fill(&mut file).map_err(fail);
        }
        _ => {}
    }
    let (temporary, file) = Temporary::create(&resolved)?;
    let fail = |error| Error::io("write", path, error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    fill(&mut out).map_err(fail)?;
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    file.sync_all().map_err(fail)?;
    // Still open, and so still locked, until it has its name.
    temporary.rename_to(&resolved, path)
}

/// Writes a file whole or not at all, unless there is something of its name already; false where there is.
/// Of several processes that write the same file, on one machine or on a shared disk, one gets true. Where
/// the disk allows it, a process that is killed on the way leaves no temporary file.
///
/// # Errors
/// The folder around it is missing or cannot be written, or the disk is full.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    #[cfg(target_os = "linux")]
    if let Some(made) = crate::output::unnamed::write_new(path, bytes)? {
        return Ok(made);
    }
    let (temporary, mut file) = Temporary::create(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("write", path, error))?;
    temporary.link_to(path)
}

/// Writes a safetensors file, whole or not at all. The same tensors always give the same bytes.
pub fn write_safetensors(
    path: &Path,
    tensors: &[OutTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let (header, order) = layout(tensors, metadata)?;
    write_atomic_with(path, |out| emit(out, &header, &order))
}

/// The bytes [`write_safetensors`] would write.
pub fn safetensors_bytes(
    tensors: &[OutTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let (header, order) = layout(tensors, metadata)?;
    let data: usize = order.iter().map(|tensor| tensor.data.len()).sum();
    let mut bytes = Vec::with_capacity(8 + header.len() + data);
    emit(&mut bytes, &header, &order)
        .map_err(|error| Error::io("write", Path::new("memory"), error))?;
    Ok(bytes)
}

fn emit(out: &mut dyn Write, header: &[u8], order: &[&OutTensor<'_>]) -> std::io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    order
        .iter()
        .try_for_each(|tensor| out.write_all(&tensor.data))
}

type Layout<'a, 'b> = (Vec<u8>, Vec<&'a OutTensor<'b>>);

/// The padded header, and the tensors in the order of their bytes.
fn layout<'a, 'b>(
    tensors: &'a [OutTensor<'b>],
    metadata: &BTreeMap<String, String>,
) -> Result<Layout<'a, 'b>> {
    let mut order: Vec<&OutTensor<'_>> = tensors.iter().collect();
    // Widest types first keeps every tensor aligned without gaps.
    order.sort_by(|a, b| {
        b.dtype
            .size()
            .cmp(&a.dtype.size())
            .then_with(|| a.name.cmp(&b.name))
    });
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut position = 0usize;
    for tensor in &order {
        let OutTensor {
            name,
            dtype,
            shape,
            data,
        } = tensor;
        if name == "__metadata__" {
            return Err(Error::Invalid(
                "a tensor cannot be called __metadata__".into(),
            ));
        }
        if byte_count(*dtype, shape) != Some(data.len()) {
            return Err(Error::Invalid(format!(
                "tensor {name:?}: {dtype} of shape {shape:?} does not fit {} bytes",
                data.len()
            )));
        }
        let end = position + data.len(); // all of it is in memory, so the sum fits
        let entry = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [position, end]});
        if header.insert(name.clone(), entry).is_some() {
            return Err(Error::Invalid(format!("tensor {name:?} is there twice")));
        }
        position = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > crate::safetensors::MAX_HEADER_BYTES {
        return Err(Error::Invalid(format!(
            "a header of {} bytes is too long",
            header.len()
        )));
    }
    Ok((header, order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SafetensorsFile, TensorSource};

    fn tensor(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> OutTensor<'static> {
        OutTensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            data: Cow::Owned(data),
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(write_new(&path, b"first").unwrap());
        assert!(!write_new(&path, b"second").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        // Of many at the same time one is first, and nothing else stays.
        let shared = folder.path().join("b.png");
        let made: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|byte| {
                    let shared = &shared;
                    scope.spawn(move || write_new(shared, &[byte; 4096]).unwrap())
                })
                .collect();
            let made = writers.into_iter().map(|writer| writer.join().unwrap());
            made.filter(|made| *made).count()
        });
        assert_eq!(made, 1);
        assert_eq!(files(folder.path()), ["a.png", "b.png"]);
        let written = std::fs::read(&shared).unwrap();
        assert!(written.len() == 4096 && written.iter().all(|byte| *byte == written[0]));
        assert!(write_new(&folder.path().join("none/c.png"), b"").is_err());
    }

    #[test]
    fn tensors_go_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let tensors = [
            tensor("odd", Dtype::U8, &[3], vec![1, 2, 3]),
            tensor("half \"quoted\" ü", Dtype::BF16, &[1, 2], vec![4, 5, 6, 7]),
            tensor("scalar", Dtype::I64, &[], 42i64.to_le_bytes().to_vec()),
            tensor("empty", Dtype::F32, &[0, 7], vec![]),
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&path, &tensors, &metadata).unwrap();
        assert_eq!(files(folder.path()), ["weights.safetensors"]);
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &metadata);
        assert_eq!(file.names().len(), tensors.len());
        for expected in &tensors {
            let view = file.view(&expected.name).unwrap().unwrap();
            assert_eq!(view.dtype, expected.dtype);
            assert_eq!(view.shape, expected.shape);
            assert_eq!(view.data, expected.data);
        }
        let mut reversed = tensors.to_vec();
        reversed.reverse();
        let bytes = safetensors_bytes(&reversed, &metadata).unwrap();
        assert_eq!(bytes, std::fs::read(&path).unwrap());
    }

    #[test]
    fn tensors_that_do_not_fit_write_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let bad = [
            vec![tensor("a", Dtype::F32, &[2], vec![0; 4])],
            vec![tensor("__metadata__", Dtype::U8, &[1], vec![0])],
            vec![
                tensor("a", Dtype::U8, &[1], vec![0]),
                tensor("a", Dtype::U8, &[1], vec![0]),
            ],
        ];
        for tensors in bad {
            assert!(write_safetensors(&path, &tensors, &BTreeMap::new()).is_err());
        }
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        write_atomic(&path, b"old").unwrap();
        let full = write_atomic_with(&path, |out| {
            out.write_all(&[7; 3 << 20])?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        });
        assert!(full.unwrap_err().to_string().contains("result"));
        let panicked =
            std::panic::catch_unwind(|| write_atomic_with(&path, |_| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(files(folder.path()), ["result"]);
        write_atomic(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_atomic(folder.path(), b"x").is_err());
        assert!(write_atomic(&folder.path().join("absent/file"), b"x").is_err());
        assert!(files(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_links_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        let target = folder.path().join("target");
        write_atomic(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        let sink = folder.path().join("sink");
        std::os::unix::fs::symlink("/dev/null", &sink).unwrap();
        write_atomic(&sink, b"gone").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
