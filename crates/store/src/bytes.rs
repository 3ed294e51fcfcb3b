//! A file's bytes, however they are held.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::lost::Noted;
use crate::{Error, Result};

/// A mapped file.
pub(crate) struct Mapped {
    /// Before the map, so that it is dropped first.
    _noted: Noted,
    map: memmap2::Mmap,
    file: File,
}

/// Mapped, owned or compiled-in bytes.
pub(crate) enum Bytes {
    Mapped(Mapped),
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a regular file.
    #[allow(unsafe_code)]
    pub(crate) fn map(path: &Path) -> Result<Self> {
        // Opening a pipe or a device could block or never end.
        let metadata = std::fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
        if !metadata.is_file() {
            return Err(Error::missing(
                path.display().to_string(),
                "not a regular file",
            ));
        }
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        if metadata.len() == 0 {
            // An empty file cannot be mapped on every system.
            return Ok(Self::Owned(Vec::new()));
        }
        // SAFETY: the map is private to this process and read-only, and is only ever seen as `&[u8]`,
        // for which every bit pattern is valid. What is left is another process that changes or cuts
        // the file while it is mapped; weights are replaced by rename (see `write`), never in place,
        // so the mapped file keeps its bytes. A file that is cut all the same is seen before a tensor
        // is looked at (`check`), and while it is read by a program that wants it (`lost`).
        let map =
            unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io("map", path, error))?;
        Ok(Self::Mapped(Mapped {
            _noted: Noted::new(&map, path),
            map,
            file,
        }))
    }

    /// Refuses a mapped file that another program has cut since; `label` is its name.
    pub(crate) fn check(&self, label: &str) -> Result<()> {
        if let Self::Mapped(Mapped { map, file, .. }) = self
            && let Ok(metadata) = file.metadata()
            && metadata.len() < map.len() as u64
        {
            return Err(Error::malformed(
                label,
                format!(
                    "another program cut this file from {} to {} bytes while it was open; \
                     try again when it is whole",
                    map.len(),
                    metadata.len()
                ),
            ));
        }
        Ok(())
    }

    /// Lets the system take back the memory of a range that was read; reading it again is slower and
    /// gives the same. Only mapped files hold such memory.
    #[allow(unsafe_code)]
    pub(crate) fn forget(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(Mapped { map, .. }) = self
            && range.end <= map.len()
        {
            // SAFETY: the pages of this map are never written, so dropping them loses nothing: they
            // come back from the file, which keeps its bytes (see `map`).
            let dropped = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
            // Advice: where the system does not take it, the memory stays.
            drop(dropped);
        }
        #[cfg(not(unix))]
        drop(range);
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => &mapped.map,
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}
