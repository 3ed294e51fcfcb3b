//! Files that are read whole: how large they may be, and what belongs to their text.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::Value;

pub use crate::impostor::impostor;
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
    let file = File::open(path).map_err(fail)?;
    // The limit also holds for a file that grows meanwhile.
    let bytes = up_to(file, limit.bytes).map_err(fail)?;
    let bytes = bytes.ok_or_else(|| limit.exceeded(path))?;
    match impostor(&bytes) {
        Some(what) => Err(Error::malformed(&path.display().to_string(), what)),
        None => Ok(bytes),
    }
}

/// All bytes of a reader, none when there are more than `limit`. They are kept in pieces until the end is
/// known, so that an endless reader takes no more memory than the limit.
fn up_to(mut reader: impl Read, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    const PIECE: usize = 1 << 20;
    let mut pieces = Vec::new();
    let mut total = 0u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE.min(limit.saturating_add(1) as usize));
        let read = (&mut reader).take(PIECE as u64).read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(Some(pieces.concat()));
        }
        total += read as u64;
        if total > limit {
            return Ok(None);
        }
        pieces.push(piece);
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

/// The next line, without its end; none at the end. `label` names the reader in messages.
///
/// # Errors
/// What cannot be read, is longer than `limit` or not UTF-8.
pub fn read_line(reader: &mut impl BufRead, label: &str, limit: Limit) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = reader
        .take(limit.bytes.saturating_add(1))
        .read_until(b'\n', &mut line)
        .map_err(|error| Error::io("read", Path::new(label), error))?;
    if read as u64 > limit.bytes {
        return Err(limit.exceeded(Path::new(label)));
    }
    if read == 0 {
        return Ok(None);
    }
    let line = text(&line, label)?;
    Ok(Some(without_last_line_end(&line).to_owned()))
}

/// A text without the line end that editors put last.
pub fn without_last_line_end(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
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
        for (text, kept) in [("a\n", "a"), ("a\n\n", "a\n"), ("a ", "a "), ("", "")] {
            assert_eq!(without_last_line_end(text), kept);
        }
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
    fn lines_come_one_by_one() {
        let mut reader = &b"\xef\xbb\xbfone\r\n\nthree"[..];
        let mut next = || read_line(&mut reader, "stdin", Limit::new("text", 8));
        for line in [Some("one"), Some(""), Some("three"), None, None] {
            assert_eq!(next().unwrap().as_deref(), line);
        }
        let mut endless = std::io::BufReader::new(std::io::repeat(b'y'));
        let message = read_line(&mut endless, "stdin", Limit::TEXT)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("stdin") && message.contains("16 MiB"),
            "{message}"
        );
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
