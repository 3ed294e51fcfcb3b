//! Ids of the hub: `owner/name`, `owner/name@revision`.

use super::options::DEFAULT_REVISION;
use crate::folder::is_weights;
use crate::{Error, Result};

/// A model's id, taken apart and checked: every part is safe as a file name and in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelId {
    /// `owner/name`.
    pub(super) name: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
    /// A file inside; only where one is asked for.
    pub(super) file: Option<String>,
}

impl ModelId {
    /// `owner/name[@revision]`; without a revision of its own, `revision` is meant.
    pub(super) fn parse(text: &str, revision: &str) -> Result<Self> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, revision),
            None => (text, revision),
        };
        match name.split_once('/') {
            Some((owner, own)) if is_plain(owner) && is_plain(own) && !own.ends_with(".git") => {}
            _ => {
                let shown: String = text
                    .chars()
                    .take(120)
                    .flat_map(char::escape_debug)
                    .collect();
                return Err(Error::Invalid(format!(
                    "there is no file or folder \"{shown}\", and it is not a hub id (owner/name, or \
                     owner/name@revision) either"
                )));
            }
        }
        if revision.len() > 200 || !revision.split('/').all(is_plain) {
            return Err(Error::Invalid(format!(
                "{revision:?} is not a branch, tag or commit"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
            file: None,
        })
    }

    /// As [`ModelId::parse`], and `owner/name[@revision]/file.safetensors`.
    pub(super) fn parse_file(text: &str, revision: &str) -> Result<Self> {
        let (model, file) = match text.match_indices('/').nth(1) {
            // A revision may hold slashes: a file's name is told by its ending.
            Some((at, _)) if is_weights(text) => (&text[..at], Some(&text[at + 1..])),
            None if is_weights(text) => {
                return Err(Error::Invalid(format!(
                    "there is no file {text:?}, and it is not one of the hub (owner/name/FILE) either"
                )));
            }
            _ => (text, None),
        };
        if let Some(file) = file {
            crate::folder::check_relative(file)?;
        }
        Ok(Self {
            file: file.map(str::to_owned),
            ..Self::parse(model, revision)?
        })
    }

    /// Whether the id leaves the choice of a revision to the repository.
    pub(super) fn is_default_revision(&self) -> bool {
        self.revision == DEFAULT_REVISION
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_default_revision() {
            true => formatter.write_str(&self.name),
            false => write!(formatter, "{}@{}", self.name, self.revision),
        }
    }
}

/// Letters, digits, `-`, `_` and `.` between them: what the hub allows in names.
pub(super) fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--") // the cache joins owner and name with it
}

/// A commit's full name, safe as a folder name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The beginning of a commit's name, long enough to be meant as one.
pub(super) fn is_short_commit(text: &str) -> bool {
    (7..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_files_are_taken_off() {
        let parse = |text: &str| {
            let id = ModelId::parse_file(text, "main").unwrap();
            (id.name, id.revision, id.file)
        };
        let own = |name: &str, revision: &str, file: Option<&str>| {
            (
                name.to_owned(),
                revision.to_owned(),
                file.map(str::to_owned),
            )
        };
        assert_eq!(parse("a/b"), own("a/b", "main", None));
        assert_eq!(parse("a/b@v1.0"), own("a/b", "v1.0", None));
        assert_eq!(parse("a/b@refs/pr/1"), own("a/b", "refs/pr/1", None));
        assert_eq!(
            parse("a/b/x.safetensors"),
            own("a/b", "main", Some("x.safetensors"))
        );
        assert_eq!(
            parse("a/b@v1/sub/x.bin"),
            own("a/b", "v1", Some("sub/x.bin"))
        );
        for odd in [
            "a/b@",
            "a/b@a b",
            "a/b@../x",
            "a/b@x@y",
            "a/b/../x.bin",
            "a/b//x.bin",
            "a/b/c",
            "loras/x.safetensors",
            "x.pth",
        ] {
            assert!(ModelId::parse_file(odd, "main").is_err(), "{odd}");
        }
        assert_eq!(
            ModelId::parse("a/b@v1", "main").unwrap().to_string(),
            "a/b@v1"
        );
        assert_eq!(ModelId::parse("a/b", "main").unwrap().to_string(), "a/b");
    }
}
