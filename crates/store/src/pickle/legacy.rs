//! What `torch.save` wrote before 1.6: pickles one after another (a magic number, a version, the machine that wrote
//! it, the object, the storages' names), then the storages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::MAX_PICKLE_BYTES;
use super::value::{Loaded, Value};
use super::vm;
use crate::{Dtype, Error, Result};

/// The magic number, which every file has within its first bytes.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const START: usize = 32;
/// Of the format; there was no other.
const VERSION: i64 = 1001;

/// The object, and where each storage's bytes are, as an archive would name it.
pub(super) fn read(bytes: &[u8], label: &str) -> Result<(Loaded, BTreeMap<String, Range<usize>>)> {
    let wrong = |problem: String| Error::malformed(label, format!("legacy checkpoint: {problem}"));
    let start = &bytes[..bytes.len().min(START)];
    if !start.windows(MAGIC.len()).any(|window| window == MAGIC) {
        return Err(wrong(
            "a pickle without the magic number of PyTorch's legacy (before 1.6) format; save a state dict with \
             torch.save, or convert it to safetensors"
                .into(),
        ));
    }
    let mut position = 0;
    let mut next = || -> Result<Loaded> {
        let rest = bytes.get(position..).unwrap_or_default();
        let rest = &rest[..rest.len().min(MAX_PICKLE_BYTES)];
        let loaded = vm::load(rest).map_err(|fault| Error::Pickle {
            file: label.to_owned(),
            offset: position + fault.offset,
            problem: format!("legacy checkpoint: {}", fault.problem),
        })?;
        position += loaded.bytes;
        Ok(loaded)
    };
    next()?;
    let version = next()?;
    if !matches!(version.get(version.root), Value::Int(VERSION)) {
        return Err(wrong(format!("it does not say version {VERSION}")));
    }
    if !is_little_endian(&next()?) {
        let problem = "the checkpoint does not say that it is little endian";
        return Err(Error::unsupported(label, problem));
    }
    let object = next()?;
    let names = next()?;
    let storages = storages(&object, &names, bytes, position).map_err(wrong)?;
    Ok((object, storages))
}

fn is_little_endian(machine: &Loaded) -> bool {
    let Value::Dict(items) = machine.get(machine.root) else {
        return false;
    };
    items.iter().any(|(key, value)| {
        matches!(machine.get(*key), Value::Text(text) if &**text == "little_endian")
            && matches!(machine.get(*value), Value::Bool(true))
    })
}

/// Where the storages lie, which follow each other from `position` on in the order of their names: a number of
/// elements, then the elements.
fn storages(
    object: &Loaded,
    names: &Loaded,
    bytes: &[u8],
    mut position: usize,
) -> Result<BTreeMap<String, Range<usize>>, String> {
    let mut known: BTreeMap<&str, (Option<Dtype>, usize)> = BTreeMap::new();
    for value in &object.values {
        let Value::Storage {
            dtype,
            key,
            elements,
        } = value
        else {
            continue;
        };
        let earlier = known.insert(key, (*dtype, *elements));
        if earlier.is_some_and(|earlier| earlier != (*dtype, *elements)) {
            return Err(format!("storage {key:?} is said to be of two kinds"));
        }
    }
    let Value::List(listed) = names.get(names.root) else {
        return Err("the storages' names are no list".into());
    };
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for name in listed {
        let Value::Text(name) = names.get(*name) else {
            return Err("a storage's name is no text".into());
        };
        let Some((dtype, elements)) = known.get(&**name) else {
            return Err(format!("nothing says what storage {name:?} holds"));
        };
        if !seen.insert(name.clone()) {
            return Err(format!("storage {name:?} is there twice"));
        }
        let dtype = dtype.ok_or("complex numbers are not supported")?;
        let cut = || format!("storage {name:?} is cut off; the file is not whole");
        let count = bytes
            .get(position..)
            .and_then(|rest| rest.first_chunk::<8>());
        let count = i64::from_le_bytes(*count.ok_or_else(cut)?);
        if usize::try_from(count) != Ok(*elements) {
            return Err(format!(
                "storage {name:?} has {count} elements, expected {elements}"
            ));
        }
        let start = position + 8;
        let end = elements
            .checked_mul(dtype.size())
            .and_then(|size| start.checked_add(size));
        let end = end.filter(|end| *end <= bytes.len()).ok_or_else(cut)?;
        found.insert(format!("data/{name}"), start..end);
        position = end;
    }
    Ok(found)
}
