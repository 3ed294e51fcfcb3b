//! One request of a batch, without its body.

use brisk_server::fields::Endpoint;
use sha2::{Digest, Sha256};

/// Longest name of a request.
pub const MOST_NAME: usize = 128;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name: what its results are called.
    pub name: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// Whom it asks.
    pub endpoint: Endpoint,
    /// The model that it names.
    pub model: Option<String>,
    /// Files that it makes.
    pub files: usize,
    /// Ending of their names.
    pub ending: &'static str,
    pub(super) start: u64,
    pub(super) length: usize,
}

impl Entry {
    /// Where its files are, below the folder of the batch.
    pub fn paths(&self) -> Vec<String> {
        Self::paths_of(&self.name, self.files, self.ending)
    }

    /// `{2 hex}/{name}.{ending}`, with `-{i}` where there are several.
    pub fn paths_of(name: &str, files: usize, ending: &str) -> Vec<String> {
        let folder = &super::sha256(name.as_bytes())[..2];
        match files {
            1 => vec![format!("{folder}/{name}.{ending}")],
            _ => (0..files)
                .map(|index| format!("{folder}/{name}-{index}.{ending}"))
                .collect(),
        }
    }

    /// The seed that it gets where it names none: always the same.
    pub fn seed(&self, batch: &str) -> u64 {
        let mut hash = Sha256::new();
        hash.update(batch.as_bytes());
        hash.update(b"/");
        hash.update(self.name.as_bytes());
        let bytes = hash.finalize();
        let first = bytes
            .iter()
            .take(8)
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        // JavaScript keeps 53 bits; there is room for a seed a result.
        first >> 13
    }
}

/// Whether a text can be a name: it becomes a file's, so `[A-Za-z0-9._-]`, not a dot or a dash at first.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MOST_NAME).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_of_their_own() {
        for name in ["a", "7", "request-1.x_y", &"n".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "é",
            &"n".repeat(129),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn files_are_spread_over_folders() {
        assert_eq!(Entry::paths_of("a", 1, "png"), ["ca/a.png"]);
        assert_eq!(
            Entry::paths_of("a", 2, "webp"),
            ["ca/a-0.webp", "ca/a-1.webp"]
        );
    }
}
