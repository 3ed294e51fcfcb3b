//! Reading PyTorch checkpoints (`torch.save`) without running them.

mod globals;
mod legacy;
mod value;
mod vm;
mod zip;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use crate::bytes::Bytes;
use crate::dtype::{byte_count, element_count};
use crate::{Dtype, Error, Result, TensorSource, TensorView};
use value::{Loaded, Tensor, Value};

/// Largest `data.pkl` that is read; it holds names and shapes, no weights.
const MAX_PICKLE_BYTES: usize = 32 << 20;
/// Deepest nesting that is looked into for tensors.
const MAX_DEPTH: usize = 32;
/// Most values looked at while tensors are collected: shared containers can repeat without end.
const MAX_VISITS: usize = 4_000_000;
/// Longest name a tensor may get by nesting.
const MAX_NAME_BYTES: usize = 4096;
/// Most bytes of all such names together.
const MAX_NAMES_BYTES: usize = 64 << 20;
/// A tensor that repeats its storage (stride 0) may be larger than it, up to this many bytes.
const MAX_EXPANDED_BYTES: usize = 64 << 20;

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// First element inside the storage.
    offset: usize,
    /// The storage's bytes in the file.
    storage: Range<usize>,
    contiguous: bool,
}

/// A `.pth`, `.pt` or `.bin` checkpoint: a zip with one pickle and one entry a storage, or (before 1.6) pickles
/// followed by the storages.
///
/// Nested dicts and lists are flattened to names with dots; a `state_dict` at the top is unwrapped and
/// whatever lies beside it is left out, but running averages of the same tensors, which trainers keep as `ema` (by
/// itself, or by decay, of which the first counts), go before those that they average. Only data is read: code is an
/// error.
pub struct PickleFile {
    label: String,
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
}

impl PickleFile {
    /// Maps a file and reads its pickle.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Bytes::map(path)?, path.display().to_string())
    }

    /// From bytes in memory; `label` stands for the file name in messages.
    pub fn from_bytes(bytes: Vec<u8>, label: impl Into<String>) -> Result<Self> {
        Self::new(Bytes::Owned(bytes), label.into())
    }

    /// From bytes compiled into the program; `label` stands for the file name in messages.
    pub fn from_static(bytes: &'static [u8], label: impl Into<String>) -> Result<Self> {
        Self::new(Bytes::Static(bytes), label.into())
    }

    fn new(bytes: Bytes, label: String) -> Result<Self> {
        let entries = parse(&bytes, &label)?;
        Ok(Self {
            label,
            bytes,
            entries,
        })
    }
}

impl TensorSource for PickleFile {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.entries
            .get(name)
            .map(|entry| (entry.dtype, entry.shape.clone()))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>> {
        let Some(entry) = self.entries.get(name) else {
            return Ok(None);
        };
        self.bytes.check(&self.label)?;
        let data = self
            .bytes
            .get(entry.storage.clone())
            .and_then(|storage| entry.gather(storage))
            .ok_or_else(|| Error::malformed(&self.label, format!("tensor {name:?} is outside")))?;
        Ok(Some(TensorView {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data,
        }))
    }

    fn origin(&self, _name: &str) -> String {
        self.label.clone()
    }
}

impl Entry {
    /// The elements in row-major order.
    fn gather<'a>(&self, storage: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let size = self.dtype.size();
        let length = byte_count(self.dtype, &self.shape)?;
        if length == 0 {
            return Some(Cow::Borrowed(&[]));
        }
        if self.contiguous {
            let start = self.offset.checked_mul(size)?;
            return storage
                .get(start..start.checked_add(length)?)
                .map(Cow::Borrowed);
        }
        let mut data = Vec::with_capacity(length);
        let mut index = vec![0usize; self.shape.len()];
        let mut element = self.offset;
        loop {
            let start = element.checked_mul(size)?;
            data.extend_from_slice(storage.get(start..start.checked_add(size)?)?);
            // Count up like an odometer, last dimension fastest.
            let mut dimension = self.shape.len();
            loop {
                let Some(inner) = dimension.checked_sub(1) else {
                    return Some(Cow::Owned(data));
                };
                dimension = inner;
                index[dimension] += 1;
                if index[dimension] < self.shape[dimension] {
                    element = element.checked_add(self.strides[dimension])?;
                    break;
                }
                element = element
                    .checked_sub(self.strides[dimension].checked_mul(self.shape[dimension] - 1)?)?;
                index[dimension] = 0;
            }
        }
    }
}

fn parse(bytes: &[u8], label: &str) -> Result<BTreeMap<String, Entry>> {
    if is_legacy(bytes) {
        let (loaded, storages) = legacy::read(bytes, label)?;
        return tensors(&loaded, "", &storages, label);
    }
    let files = zip::entries(bytes).map_err(|problem| Error::malformed(label, problem))?;
    let (prefix, pickle) = find_pickle(bytes, &files, label)?;
    if let Some(order) = files.get(&format!("{prefix}byteorder"))
        && bytes.get(order.clone()) != Some(b"little")
    {
        return Err(Error::unsupported(
            label,
            "the checkpoint is not little endian",
        ));
    }
    let loaded = vm::load(pickle).map_err(|fault| Error::Pickle {
        file: label.to_owned(),
        offset: fault.offset,
        problem: fault.problem,
    })?;
    tensors(&loaded, prefix, &files, label)
}

/// The tensors of an object whose storages are `files` in the folder `prefix`.
fn tensors(
    loaded: &Loaded,
    prefix: &str,
    files: &BTreeMap<String, Range<usize>>,
    label: &str,
) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for (name, tensor) in collect(loaded).map_err(|problem| Error::malformed(label, problem))? {
        let entry = check(tensor, prefix, files)
            .map_err(|problem| Error::malformed(label, format!("tensor {name:?}: {problem}")))?;
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::malformed(
                label,
                format!("tensor {name:?} is there twice"),
            ));
        }
    }
    Ok(entries)
}

/// A pickle without a zip around it: what `torch.save` wrote before 1.6.
pub(crate) fn is_legacy(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// The archive's folder (with its slash) and the pickle in it.
fn find_pickle<'a, 'b>(
    bytes: &'a [u8],
    files: &'b BTreeMap<String, Range<usize>>,
    label: &str,
) -> Result<(&'b str, &'a [u8])> {
    let mut found = files.iter().filter_map(|(name, range)| {
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.is_empty() || (prefix.ends_with('/') && prefix.matches('/').count() == 1))
            .then_some((prefix, range))
    });
    let Some((prefix, range)) = found.next() else {
        return Err(Error::malformed(
            label,
            "a zip without data.pkl: not a PyTorch checkpoint",
        ));
    };
    if found.next().is_some() {
        return Err(Error::malformed(label, "a zip with more than one data.pkl"));
    }
    let code = format!("{prefix}code/");
    let script = files.keys().any(|name| name.starts_with(&code));
    if script || files.contains_key(&format!("{prefix}constants.pkl")) {
        return Err(Error::unsupported(
            label,
            "this is a TorchScript archive, which is code; save the state dict instead",
        ));
    }
    if range.len() > MAX_PICKLE_BYTES {
        return Err(Error::malformed(
            label,
            format!(
                "data.pkl has {} bytes, more than the {MAX_PICKLE_BYTES} allowed",
                range.len()
            ),
        ));
    }
    Ok((prefix, bytes.get(range.clone()).unwrap_or_default()))
}

/// Running averages of the tensors of `state`, where a trainer keeps some in `ema`.
fn averages(loaded: &Loaded, ema: u32, state: u32) -> Option<u32> {
    let keys = |id: u32| -> Option<BTreeSet<&str>> {
        let Value::Dict(items) = loaded.get(id) else {
            return None;
        };
        let keys = items.iter().map(|(key, _)| match loaded.get(*key) {
            Value::Text(text) => Some(text.as_ref()),
            _ => None,
        });
        keys.collect()
    };
    let wanted = keys(state).filter(|keys| !keys.is_empty())?;
    if keys(ema).as_ref() == Some(&wanted) {
        return Some(ema);
    }
    let Value::Dict(items) = loaded.get(ema) else {
        return None;
    };
    let (_, first) = items.first()?;
    (keys(*first)? == wanted).then_some(*first)
}

/// All tensors under the root (or its `state_dict`, or what is averaged of it) with their flattened names.
fn collect(loaded: &Loaded) -> Result<Vec<(String, &Tensor)>, String> {
    let mut root = loaded.root;
    if let Value::Dict(items) = loaded.get(root) {
        let at = |name: &str| {
            let mut named = items.iter().rev();
            let named = named.find(|(key, value)| {
                matches!(loaded.get(*key), Value::Text(text) if text.as_ref() == name)
                    && matches!(loaded.get(*value), Value::Dict(_))
            });
            named.map(|(_, value)| *value)
        };
        if let Some(state) = at("state_dict") {
            let averages = at("ema").and_then(|ema| averages(loaded, ema, state));
            root = averages.unwrap_or(state);
        }
    } else {
        return Err("the checkpoint is not a dict of tensors; save the state dict instead".into());
    }
    let mut tensors = Vec::new();
    let mut visits = 0usize;
    let mut name_bytes = 0usize;
    let mut pending = vec![(String::new(), root, 0usize)];
    while let Some((name, id, depth)) = pending.pop() {
        visits += 1;
        if visits > MAX_VISITS {
            return Err(format!(
                "more than {MAX_VISITS} values; the containers repeat without end"
            ));
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "nested more than {MAX_DEPTH} deep at {:?}",
                shorten(&name)
            ));
        }
        let join = |part: &str| {
            if name.is_empty() {
                part.to_owned()
            } else {
                format!("{name}.{part}")
            }
        };
        let mut add = |part: &str, child| {
            // Leaves cannot hold tensors; naming them would only cost memory.
            let container = matches!(
                loaded.get(child),
                Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Tensor(_)
            );
            if container {
                if name.len() + part.len() > MAX_NAME_BYTES {
                    return Err(format!("a name longer than {MAX_NAME_BYTES} bytes"));
                }
                name_bytes += name.len() + part.len() + 1;
                if name_bytes > MAX_NAMES_BYTES {
                    return Err(format!(
                        "names of more than {MAX_NAMES_BYTES} bytes together"
                    ));
                }
                pending.push((join(part), child, depth + 1));
            }
            Ok(())
        };
        match loaded.get(id) {
            Value::Tensor(tensor) => tensors.push((name, tensor)),
            Value::Dict(items) => {
                visits = visits.saturating_add(items.len());
                for &(key, value) in items {
                    match loaded.get(key) {
                        Value::Text(text) => add(text, value)?,
                        Value::Int(number) => add(&number.to_string(), value)?,
                        Value::Float(number) => add(&number.to_string(), value)?,
                        // No name can be made of other keys, so nothing under them can be asked for.
                        _ => {}
                    }
                }
            }
            Value::List(items) => {
                visits = visits.saturating_add(items.len());
                for (index, &item) in items.iter().enumerate() {
                    add(&index.to_string(), item)?;
                }
            }
            Value::Tuple(items) => {
                visits = visits.saturating_add(items.len());
                for (index, &item) in items.iter().enumerate() {
                    add(&index.to_string(), item)?;
                }
            }
            _ => {}
        }
    }
    Ok(tensors)
}

fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Checks a tensor against its storage, so that `view` cannot leave it.
fn check(
    tensor: &Tensor,
    prefix: &str,
    files: &BTreeMap<String, Range<usize>>,
) -> Result<Entry, String> {
    let dtype = tensor.dtype.ok_or("complex numbers are not supported")?;
    let key = &tensor.key;
    let storage = files
        .get(&format!("{prefix}data/{key}"))
        .ok_or_else(|| format!("its storage \"data/{}\" is missing", shorten(key)))?;
    let expected = tensor
        .storage_elements
        .checked_mul(dtype.size())
        .ok_or_else(|| {
            format!(
                "a storage of {} elements overflows",
                tensor.storage_elements
            )
        })?;
    if expected != storage.len() {
        return Err(format!(
            "its storage \"data/{}\" should have {expected} bytes, found {}",
            shorten(key),
            storage.len()
        ));
    }
    let (shape, strides) = (tensor.shape.to_vec(), tensor.strides.to_vec());
    let length = byte_count(dtype, &shape).ok_or_else(|| format!("shape {shape:?} overflows"))?;
    let elements = element_count(&shape).unwrap_or(0);
    let outside = || {
        format!(
            "shape {shape:?} with strides {strides:?} at {} leaves its storage of {} elements",
            tensor.offset, tensor.storage_elements
        )
    };
    if elements > 0 {
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(tensor.offset, |last, (size, stride)| {
                last.checked_add(stride.checked_mul(size - 1)?)
            });
        if last.is_none_or(|last| last >= tensor.storage_elements) {
            return Err(outside());
        }
        if length > storage.len().max(MAX_EXPANDED_BYTES) {
            return Err(format!(
                "shape {shape:?} repeats a storage of {} bytes up to {length} bytes",
                storage.len()
            ));
        }
    }
    let contiguous = is_contiguous(&shape, &strides);
    Ok(Entry {
        dtype,
        shape,
        strides,
        offset: tensor.offset,
        storage: storage.clone(),
        contiguous,
    })
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = Some(1usize);
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || Some(stride) == expected;
        expected = expected.and_then(|expected| expected.checked_mul(size));
        fits
    })
}

#[cfg(test)]
mod tests;
