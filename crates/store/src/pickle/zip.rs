//! The little of ZIP that PyTorch writes: stored entries, found through the central directory.
//!
//! Nothing is unpacked, so nothing can blow up: an entry is a checked range of the file.

use std::collections::BTreeMap;
use std::ops::Range;

const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const END64_LOCATOR_SIGNATURE: &[u8] = b"PK\x06\x07";
const END64_SIGNATURE: &[u8] = b"PK\x06\x06";
const CENTRAL_SIGNATURE: &[u8] = b"PK\x01\x02";
const LOCAL_SIGNATURE: &[u8] = b"PK\x03\x04";

const END_LENGTH: usize = 22;
const END64_LOCATOR_LENGTH: usize = 20;
const END64_LENGTH: usize = 56;
const CENTRAL_LENGTH: usize = 46;
const LOCAL_LENGTH: usize = 30;
const MAX_COMMENT: usize = 65535;

/// Entry name to the range of its bytes in the file. Errors are sentences without the file's name.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let (count, directory) = find_directory(bytes)?;
    let mut found = BTreeMap::new();
    let mut rest = Reader {
        bytes,
        position: directory.start,
        end: directory.end,
    };
    // The number of entries is not trusted for anything but the comparison below.
    let mut read = 0u64;
    while rest.position < rest.end {
        let (name, range) = read_entry(bytes, &mut rest, directory.start)?;
        read += 1;
        if let Some(range) = range
            && found.insert(name.clone(), range).is_some()
        {
            return Err(format!("zip: entry {name:?} is there twice"));
        }
    }
    if read != count {
        return Err(format!(
            "zip: the directory claims {count} entries, found {read}"
        ));
    }
    let mut order: Vec<(&Range<usize>, &String)> =
        found.iter().map(|(name, range)| (range, name)).collect();
    order.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in order.windows(2) {
        if let [(before, first), (after, second)] = pair
            && after.start < before.end
        {
            return Err(format!("zip: entries {first:?} and {second:?} overlap"));
        }
    }
    Ok(found)
}

/// Little-endian reads inside `position..end`, every one checked.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let stop = self
            .position
            .checked_add(length)
            .filter(|&stop| stop <= self.end);
        let part = stop.and_then(|stop| self.bytes.get(self.position..stop));
        let part = part.ok_or_else(|| {
            format!(
                "zip: truncated at byte {}: {length} more bytes expected",
                self.position
            )
        })?;
        self.position += length;
        Ok(part)
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |part| u16::from_le_bytes(*part))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |part| u32::from_le_bytes(*part))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |part| u64::from_le_bytes(*part))
}

/// Number of entries and the range of the central directory.
fn find_directory(bytes: &[u8]) -> Result<(u64, Range<usize>), String> {
    let earliest = bytes.len().saturating_sub(END_LENGTH + MAX_COMMENT);
    let tail = &bytes[earliest..];
    let end = (0..(tail.len() + 1).saturating_sub(END_LENGTH))
        .rev()
        .map(|offset| earliest + offset)
        .find(|&offset| {
            let record = &bytes[offset..offset + END_LENGTH];
            let comment = usize::from(u16_at(record, 20));
            record.starts_with(END_SIGNATURE) && offset + END_LENGTH + comment == bytes.len()
        })
        .ok_or(
            "zip: no end-of-directory record; the file is truncated or not a PyTorch checkpoint",
        )?;
    let record = &bytes[end..end + END_LENGTH];
    let mut count = u64::from(u16_at(record, 10));
    let mut size = u64::from(u32_at(record, 12));
    let mut start = u64::from(u32_at(record, 16));
    let mut limit = end;
    let mut disks = (u32::from(u16_at(record, 4)), u32::from(u16_at(record, 6)));
    let locator = end
        .checked_sub(END64_LOCATOR_LENGTH)
        .map(|offset| (offset, &bytes[offset..end]))
        .filter(|(_, locator)| locator.starts_with(END64_LOCATOR_SIGNATURE));
    if let Some((locator_offset, locator)) = locator {
        let offset = usize::try_from(u64_at(locator, 8)).unwrap_or(usize::MAX);
        let mut reader = Reader {
            bytes,
            position: offset,
            end: locator_offset,
        };
        let record = reader.take(END64_LENGTH)?;
        if !record.starts_with(END64_SIGNATURE) {
            return Err(format!("zip: no zip64 end record at byte {offset}"));
        }
        count = u64_at(record, 32);
        size = u64_at(record, 40);
        start = u64_at(record, 48);
        limit = offset;
        disks = (u32_at(record, 16), u32_at(record, 20));
    }
    if disks != (0, 0) {
        return Err("zip: archives split over several disks are not supported".into());
    }
    let stop = start.checked_add(size);
    match (usize::try_from(start), stop.map(usize::try_from)) {
        (Ok(start), Some(Ok(stop))) if stop <= limit => Ok((count, start..stop)),
        _ => Err(format!(
            "zip: the directory claims bytes {start}.. ({size} long), the file has {} before its end \
             record; it is truncated or damaged",
            limit
        )),
    }
}

/// One central record; `None` for a folder.
fn read_entry(
    bytes: &[u8],
    directory: &mut Reader<'_>,
    data_end: usize,
) -> Result<(String, Option<Range<usize>>), String> {
    let at = directory.position;
    let record = directory.take(CENTRAL_LENGTH)?;
    if !record.starts_with(CENTRAL_SIGNATURE) {
        return Err(format!("zip: no directory record at byte {at}"));
    }
    let name = directory.take(u16_at(record, 28).into())?;
    let extra = directory.take(u16_at(record, 30).into())?;
    directory.take(u16_at(record, 32).into())?;
    let name = std::str::from_utf8(name)
        .map_err(|_| format!("zip: the entry name at byte {at} is not UTF-8"))?;
    let flags = u16_at(record, 8);
    if flags & 1 != 0 {
        return Err(format!("zip: entry {name:?} is encrypted"));
    }
    let method = u16_at(record, 10);
    if method != 0 {
        return Err(format!(
            "zip: entry {name:?} is compressed (method {method}); PyTorch stores entries uncompressed"
        ));
    }
    let mut sizes = [u32_at(record, 24), u32_at(record, 20), u32_at(record, 42)].map(u64::from);
    read_zip64_extra(extra, &mut sizes).ok_or_else(|| {
        format!("zip: the zip64 sizes of entry {name:?} are missing or cut short")
    })?;
    let [size, stored, offset] = sizes;
    if size != stored {
        return Err(format!(
            "zip: entry {name:?} claims {size} bytes but stores {stored}"
        ));
    }
    if name.ends_with('/') && size == 0 {
        return Ok((name.to_owned(), None));
    }

    let position = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut local = Reader {
        bytes,
        position,
        end: data_end,
    };
    let header = local
        .take(LOCAL_LENGTH)
        .map_err(|error| format!("{error} (entry {name:?})"))?;
    if !header.starts_with(LOCAL_SIGNATURE) {
        return Err(format!(
            "zip: entry {name:?} has no local header at byte {offset}"
        ));
    }
    let local_name = local.take(u16_at(header, 26).into())?;
    if local_name != name.as_bytes() {
        return Err(format!(
            "zip: entry {name:?} has another name in its local header"
        ));
    }
    local.take(u16_at(header, 28).into())?;
    let start = local.position;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    local.take(size).map_err(|_| {
        format!(
            "zip: entry {name:?} claims {size} bytes, {} are there; the file is truncated or damaged",
            data_end.saturating_sub(start)
        )
    })?;
    Ok((name.to_owned(), Some(start..local.position)))
}

/// Fills those of (size, stored size, offset) that are all ones from the zip64 field.
fn read_zip64_extra(extra: &[u8], sizes: &mut [u64; 3]) -> Option<()> {
    let in_extra = u64::from(u32::MAX);
    if !sizes.contains(&in_extra) {
        return Some(());
    }
    let mut rest = extra;
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 2));
        let field = rest.get(4..4 + length)?;
        if u16_at(rest, 0) == 1 {
            let mut values = field
                .as_chunks::<8>()
                .0
                .iter()
                .map(|part| u64::from_le_bytes(*part));
            for size in sizes.iter_mut().filter(|size| **size == in_extra) {
                *size = values.next()?;
            }
            return Some(());
        }
        rest = &rest[4 + length..];
    }
    None
}
