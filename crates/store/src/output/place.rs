//! Whether an output can be written, and what several are called.

use std::path::{Path, PathBuf};

use super::temporary::{Temporary, parent_of};
use crate::{Error, Result};

/// Checks before a long run that a file can be written, by making one beside it for a moment.
///
/// # Errors
/// When it is a folder, or the folder around it is missing or cannot be written.
pub fn check_writable(path: &Path) -> Result<()> {
    let refused = |reason: String| {
        Err(Error::Invalid(format!(
            "cannot write {}: {reason}",
            path.display()
        )))
    };
    if path.is_dir() {
        return refused("it is a folder; give the name of a file".to_owned());
    }
    if path.exists() && !path.is_file() {
        return Ok(()); // a device or a pipe: only writing tells
    }
    let parent = parent_of(path);
    if !parent.is_dir() {
        return refused(format!(
            "there is no folder {}; make it first",
            parent.display()
        ));
    }
    Temporary::create(path).map(drop)
}

/// `out.png`, or `out-3.png` for the one of this index among several.
pub fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{index}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_several_outputs_are_numbered() {
        let name = |path: &str, count| numbered(Path::new(path), 1, count).display().to_string();
        assert_eq!(name("a/out.png", 1), "a/out.png");
        assert_eq!(name("a/out.png", 2), "a/out-1.png");
        assert_eq!(name("out", 3), "out-1");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_writable(folder.path()).is_err());
        let message = check_writable(&folder.path().join("absent/file"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("make it first"), "{message}");
        check_writable(&folder.path().join("file")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
