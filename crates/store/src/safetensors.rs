//! Reading safetensors: a length, a JSON header, then the tensors' bytes back to back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::bytes::Bytes;
use crate::dtype::byte_count;
use crate::impostor::impostor;
use crate::{Dtype, Error, Result, TensorSource, TensorView};

/// Longest header that is read, as in the reference implementation.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offsets into the whole file.
    range: std::ops::Range<usize>,
}

/// An open safetensors file. The header is checked in full before any tensor can be asked for.
pub struct SafetensorsFile {
    label: String,
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Maps a file; only the header is read now.
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

    /// The `__metadata__` table, empty when the file has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn new(bytes: Bytes, label: String) -> Result<Self> {
        let (entries, metadata) = parse(&bytes, &label)?;
        Ok(Self {
            label,
            bytes,
            entries,
            metadata,
        })
    }
}

impl TensorSource for SafetensorsFile {
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
            .get(entry.range.clone())
            .ok_or_else(|| Error::malformed(&self.label, format!("tensor {name:?} is outside")))?;
        Ok(Some(TensorView {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data: Cow::Borrowed(data),
        }))
    }

    fn origin(&self, _name: &str) -> String {
        self.label.clone()
    }

    fn forget(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.bytes.forget(entry.range.clone());
        }
    }
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header in file order, repeated names kept so that they can be refused.
struct RawHeader {
    entries: Vec<(String, RawEntry)>,
    metadata: Vec<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a table of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader {
                    entries: Vec::new(),
                    metadata: Vec::new(),
                };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata.push(map.next_value()?);
                    } else {
                        let entry = map.next_value().map_err(|error| {
                            serde::de::Error::custom(format!("tensor {name:?}: {error}"))
                        })?;
                        header.entries.push((name, entry));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

type Parsed = (BTreeMap<String, Entry>, BTreeMap<String, String>);

fn parse(bytes: &[u8], label: &str) -> Result<Parsed> {
    let malformed = |problem: String| Error::malformed(label, problem);
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(malformed(format!(
            "not a safetensors file: {} bytes, expected at least 8",
            bytes.len()
        )));
    };
    let header_length = u64::from_le_bytes(*length);
    if header_length > MAX_HEADER_BYTES {
        if let Some(what) = impostor(bytes) {
            return Err(malformed(what));
        }
        return Err(malformed(format!(
            "the header claims {header_length} bytes, more than the {MAX_HEADER_BYTES} allowed; \
             this is not a safetensors file or it is damaged"
        )));
    }
    let header_length = header_length as usize; // at most 100 MB, fits everywhere
    if header_length > rest.len() {
        return Err(malformed(format!(
            "truncated: the header claims {header_length} bytes, the file has {} after the length; \
             download it again",
            rest.len()
        )));
    }
    let (header, data) = rest.split_at(header_length);
    if header.first() != Some(&b'{') {
        return Err(malformed(
            "not a safetensors file: the header is not a JSON object".into(),
        ));
    }
    let raw: RawHeader = serde_json::from_slice(header)
        .map_err(|error| malformed(format!("the header is not valid: {error}")))?;
    if raw.metadata.len() > 1 {
        return Err(malformed(
            "the header has more than one __metadata__".into(),
        ));
    }
    let metadata = raw.metadata.into_iter().next().unwrap_or_default();

    let data_start = 8 + header_length;
    let mut order: Vec<(u64, u64, String)> = Vec::with_capacity(raw.entries.len());
    let mut entries = BTreeMap::new();
    for (name, raw) in raw.entries {
        let (begin, end) = (raw.data_offsets[0], raw.data_offsets[1]);
        let entry = check_entry(&name, raw, data_start).map_err(&malformed)?;
        order.push((begin, end, name.clone()));
        if entries.insert(name.clone(), entry).is_some() {
            return Err(malformed(format!("tensor {name:?} is there twice")));
        }
    }

    order.sort_unstable();
    let mut position = 0;
    for (begin, end, name) in &order {
        if *begin != position {
            let kind = if *begin < position {
                "overlaps another tensor"
            } else {
                "leaves a gap"
            };
            return Err(malformed(format!(
                "tensor {name:?} {kind}: it starts at byte {begin} of the data, expected {position}"
            )));
        }
        position = *end;
    }
    if position > data.len() as u64 {
        let expected = position.saturating_add(data_start as u64);
        return Err(malformed(format!(
            "truncated: expected {expected} bytes, found {}; it looks half-downloaded, get it again",
            bytes.len()
        )));
    }
    if position < data.len() as u64 {
        return Err(malformed(format!(
            "{} bytes after the last tensor: expected {} bytes, found {}",
            data.len() as u64 - position,
            position + data_start as u64,
            bytes.len()
        )));
    }
    Ok((entries, metadata))
}

/// Checks one tensor by itself; that all of them tile the data is checked afterwards.
fn check_entry(name: &str, raw: RawEntry, data_start: usize) -> Result<Entry, String> {
    let dtype =
        Dtype::from_safetensors(&raw.dtype).map_err(|why| format!("tensor {name:?}: {why}"))?;
    let shape = raw
        .shape
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<Vec<_>, _>>();
    let shape =
        shape.map_err(|_| format!("tensor {name:?}: a size in {:?} is too large", raw.shape))?;
    let expected = byte_count(dtype, &shape)
        .ok_or_else(|| format!("tensor {name:?}: shape {shape:?} overflows"))?;
    let [begin, end] = raw.data_offsets;
    let length = end.checked_sub(begin).ok_or_else(|| {
        format!("tensor {name:?}: it ends at byte {end}, before its start at {begin}")
    })?;
    if length != expected as u64 {
        return Err(format!(
            "tensor {name:?}: {dtype} of shape {shape:?} needs {expected} bytes, \
             its offsets hold {length}"
        ));
    }
    if begin % dtype.size() as u64 != 0 {
        return Err(format!(
            "tensor {name:?}: its start at byte {begin} is not a multiple of {} ({dtype})",
            dtype.size()
        ));
    }
    let place = |offset: u64| usize::try_from(offset).ok()?.checked_add(data_start);
    let (Some(start), Some(stop)) = (place(begin), place(end)) else {
        return Err(format!("tensor {name:?}: offsets {begin}..{end} overflow"));
    };
    Ok(Entry {
        dtype,
        shape,
        range: start..stop,
    })
}
