//! Names for results that the user left to us: no file has them, and no other run is about to.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::lock::is_still_at;
use super::place::numbered;

/// Names of files that do not exist yet. While this lives no other process is given them.
#[derive(Debug)]
pub struct UnusedNames {
    names: Vec<PathBuf>,
    _claims: Vec<Claim>,
}

impl UnusedNames {
    /// The names of `count` files after `path`: `out.png`, or the first `out-N.png`, each
    /// [numbered](super::numbered) where there are several. Where the folder cannot be written the
    /// names are not kept from others; writing will say why.
    pub fn choose(path: &Path, count: usize) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_owned();
        let mut number = 0usize;
        loop {
            let mut name = stem.clone();
            if number > 0 {
                name.push(format!("-{number}"));
            }
            if let Some(extension) = path.extension() {
                name.push(".");
                name.push(extension);
            }
            let base = path.with_file_name(name);
            let names: Vec<PathBuf> = (0..count).map(|i| numbered(&base, i, count)).collect();
            let claims: Option<Vec<Claim>> = names.iter().map(|name| Claim::take(name)).collect();
            if let Some(claims) = claims {
                return Self {
                    names,
                    _claims: claims,
                };
            }
            number += 1;
        }
    }

    /// The names, one a file.
    pub fn paths(&self) -> &[PathBuf] {
        &self.names
    }
}

/// A locked file beside a name, called as temporary files are, so that one left by a killed run is
/// swept away like them.
#[derive(Debug)]
struct Claim(Option<(PathBuf, File)>);

impl Claim {
    /// None where the name is taken.
    fn take(name: &Path) -> Option<Self> {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name.file_name().unwrap_or_default());
        hidden.push(".0-0.tmp");
        let path = name.with_file_name(hidden);
        loop {
            let mut options = OpenOptions::new();
            let Ok(file) = options.create(true).truncate(false).write(true).open(&path) else {
                return (!name.exists()).then_some(Self(None));
            };
            match file.try_lock() {
                Ok(()) if !is_still_at(&file, &path) => continue, // its last holder removed it meanwhile
                Err(TryLockError::WouldBlock) => return None,
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let claim = Self(Some((path, file)));
            return (!name.exists()).then_some(claim);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((path, _locked)) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_names(names: &UnusedNames) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        names.paths().iter().map(name).collect()
    }

    #[test]
    fn names_that_exist_or_are_claimed_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.png");
        let first = UnusedNames::choose(&path, 1);
        assert_eq!(file_names(&first), ["out.png"]);
        // `out-1.png` is the second of two after `out.png`.
        let second = UnusedNames::choose(&path, 2);
        assert_eq!(file_names(&second), ["out-0.png", "out-1.png"]);
        let third = UnusedNames::choose(&path, 1);
        assert_eq!(file_names(&third), ["out-2.png"]);
        drop((first, second, third));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(&path, "a picture").unwrap();
        assert_eq!(file_names(&UnusedNames::choose(&path, 1)), ["out-1.png"]);
    }

    #[test]
    fn a_claim_of_a_dead_run_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".out.png.0-0.tmp"), "").unwrap();
        let names = UnusedNames::choose(&folder.path().join("out.png"), 1);
        assert_eq!(file_names(&names), ["out.png"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_for_writing_to_tell() {
        let names = UnusedNames::choose(Path::new("/nowhere/out.png"), 1);
        assert_eq!(names.paths(), [Path::new("/nowhere/out.png")]);
    }
}
