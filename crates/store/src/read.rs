//! Files that are read whole: how large they may be, and what belongs to their text.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::impostor::impostor;
use crate::{Error, Result, parse_json};

/// How large a file of some kind may be that is read whole. The limit also ends pipes and devices that
/// never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    kind: &'static str,
    bytes: u64,
}

impl Limit {
    /// Texts and lists of texts: prompts, instructions, words. 16 MiB.
    pub const TEXT: Self = Self::new("text", 16 << 20);
    /// Settings that people write: recipes, configurations. 16 MiB.
    pub const SETTINGS: Self = Self::new("settings file", 16 << 20);
    /// Files that come with a model, vocabularies among them. 256 MiB.
    pub const MODEL_FILE: Self = Self::new("model's settings or vocabulary", 256 << 20);
    /// Results, logs and data in JSON. 128 MiB.
    pub const DATA: Self = Self::new("log or data file", 128 << 20);
    /// Pictures, compressed. 256 MiB.
    pub const PICTURE: Self = Self::new("picture", 256 << 20);

    /// At most so many bytes for what `kind` names.
    pub const fn new(kind: &'static str, bytes: u64) -> Self {
        Self { kind, bytes }
    }

    fn exceeded(&self, path: &Path) -> Error {
        let (size, unit) = match self.bytes {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => (bytes >> 20, "MiB"),
            bytes => (bytes, "bytes"),
        };
        Error::malformed(
            &path.display().to_string(),
            format!("larger than {size} {unit}, too large for a {}", self.kind),
        )
    }
}

/// A file's bytes, at most as many as `limit` says; it may be a pipe.
///
/// # Errors
/// Files that cannot be read or are larger, and what stands in a file's place: a Git LFS pointer, a web
/// page, a server's error message.
pub fn read(path: &Path, limit: Limit) -> Result<Vec<u8>> {
    let fail = |error| Error::io("read", path, error);
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if metadata.is_dir() {
        return Err(Error::Invalid(format!(
            "cannot read {}: it is a folder, expected a file",
            path.display()
        )));
    }
    if metadata.is_file() && metadata.len() > limit.bytes {
        return Err(limit.exceeded(path));
    }
    let mut bytes = Vec::new();
    if metadata.is_file() {
        // One byte more, so that the end is found without growing.
        bytes.reserve_exact(metadata.len() as usize + 1);
    }
    // The limit also holds for a file that grows meanwhile.
    let read = File::open(path)
        .and_then(|file| {
            file.take(limit.bytes.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(fail)?;
    if read as u64 > limit.bytes {
        return Err(limit.exceeded(path));
    }
    match impostor(&bytes) {
        Some(what) => Err(Error::malformed(&path.display().to_string(), what)),
        None => Ok(bytes),
    }
}

/// A text file, as [`text`] has it.
///
/// # Errors
/// As [`read`], and bytes that are not UTF-8.
pub fn read_text(path: &Path, limit: Limit) -> Result<String> {
    let bytes = read(path, limit)?;
    text(&bytes, &path.display().to_string()).map(Cow::into_owned)
}

/// A JSON file, as [`parse_json`] reads it.
///
/// # Errors
/// As [`read`], and what is not JSON.
pub fn read_json(path: &Path, limit: Limit) -> Result<Value> {
    parse_json(&read(path, limit)?, &path.display().to_string())
}

/// The text that bytes hold, whichever editor saved them: without a byte order mark, with plain line
/// ends.
///
/// # Errors
/// Bytes that are not UTF-8; the message begins with `label`.
pub fn text<'a>(bytes: &'a [u8], label: &str) -> Result<Cow<'a, str>> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::unsupported(
            label,
            "this text is in UTF-16; save it as UTF-8",
        ));
    }
    let text = std::str::from_utf8(without_mark(bytes)).map_err(|error| {
        Error::malformed(
            label,
            format!(
                "not a text in UTF-8 (byte {}); save it as UTF-8",
                error.valid_up_to()
            ),
        )
    })?;
    Ok(match text.contains("\r\n") {
        true => Cow::Owned(text.replace("\r\n", "\n")),
        false => Cow::Borrowed(text),
    })
}

/// Bytes without the UTF-8 byte order mark that some editors put first.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_editor_gives_the_same_text() {
        for bytes in [
            &b"a\nb\n"[..],
            b"a\r\nb\r\n",
            b"\xef\xbb\xbfa\nb\n",
            b"\xef\xbb\xbfa\r\nb\r\n",
        ] {
            assert_eq!(text(bytes, "x").unwrap(), "a\nb\n");
        }
        assert_eq!(text(b"a\rb", "x").unwrap(), "a\rb");
        assert_eq!(parse_json(b"\xef\xbb\xbf{\"a\": 1}", "x").unwrap()["a"], 1);
        for bytes in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"a\xff"] {
            let message = text(bytes, "x.txt").unwrap_err().to_string();
            assert!(
                message.starts_with("x.txt") && message.contains("save it as UTF-8"),
                "{message}"
            );
        }
    }

    #[test]
    fn limits_hold_for_files_and_for_what_never_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let limit = Limit::new("text", 8);
        std::fs::write(&path, b"12345678").unwrap();
        assert_eq!(read_text(&path, limit).unwrap(), "12345678");
        std::fs::write(&path, b"123456789").unwrap();
        let message = read(&path, limit).unwrap_err().to_string();
        assert!(
            message.contains("larger than 8 bytes, too large for a text"),
            "{message}"
        );
        let message = read(folder.path(), limit).unwrap_err().to_string();
        assert!(message.contains("folder"), "{message}");
        assert!(read(&folder.path().join("absent"), limit).is_err());
        #[cfg(unix)]
        for limit in [Limit::TEXT, Limit::SETTINGS] {
            let message = read(Path::new("/dev/zero"), limit).unwrap_err().to_string();
            assert!(
                message.starts_with("/dev/zero") && message.contains("16 MiB"),
                "{message}"
            );
        }
    }
}
