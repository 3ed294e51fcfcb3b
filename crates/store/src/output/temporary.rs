//! Files and folders that have a temporary name until they are whole.
//!
//! The name is `.NAME.PROCESS-NUMBER.tmp`, beside the one it will get. While the process lives it holds
//! a lock on it, which the system drops however the process ends; so whatever has such a name and no
//! lock was left by a killed run, and the next run that writes into the folder removes it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// How often a name is made anew when another process takes it for an abandoned one.
const TRIES: usize = 16;
/// A longer name would not leave room for what is added to it: systems allow 255 bytes.
const LONGEST_NAME: usize = 200;

/// A file that disappears unless it is renamed.
pub(crate) struct Temporary {
    path: Option<PathBuf>,
}

impl Temporary {
    /// Opens a new file for what will be called `target`. The file returned holds the lock: it has to
    /// stay open until [`Temporary::rename_to`].
    pub(crate) fn create(target: &Path) -> Result<(Self, File)> {
        let make = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let (path, file) = locked(target, make, |file| Some(file))?;
        Ok((Self { path: Some(path) }, file))
    }

    /// Gives the file its name; `asked` is what messages call it.
    pub(crate) fn rename_to(mut self, target: &Path, asked: &Path) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        std::fs::rename(path, target).map_err(|error| Error::io("write", asked, error))?;
        self.path = None;
        sync_folder(parent_of(target));
        Ok(())
    }

    /// Gives the file its name unless another file has it; false where one has.
    pub(crate) fn link_to(mut self, target: &Path) -> Result<bool> {
        let Some(path) = &self.path else {
            return Ok(false);
        };
        match std::fs::hard_link(path, target) {
            Ok(()) => sync_folder(parent_of(target)),
            Err(_) if target.exists() => return Ok(false),
            // Disks that know one name a file only: what another made in between is replaced, whole.
            Err(error) if knows_no_links(&error) => {
                std::fs::rename(path, target).map_err(|error| Error::io("write", target, error))?;
                self.path = None;
                sync_folder(parent_of(target));
            }
            Err(error) => return Err(Error::io("write", target, error)),
        }
        Ok(true)
    }
}

fn knows_no_links(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::Unsupported
    )
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A folder that disappears with all that is in it, unless it is [kept](TemporaryFolder::keep).
pub struct TemporaryFolder {
    path: Option<PathBuf>,
    target: PathBuf,
    /// Holds the lock, where the system can lock folders.
    _lock: Option<File>,
}

impl TemporaryFolder {
    /// Makes an empty folder beside `target`, on the same disk, and removes what killed runs left there.
    ///
    /// # Errors
    /// When `target` is no name for a folder or the folder around it cannot be written.
    pub fn create(target: &Path) -> Result<Self> {
        let make = |path: &Path| {
            std::fs::create_dir(path)?;
            // Where folders cannot be opened they cannot be locked either, and are never swept away.
            Ok(File::open(path).ok())
        };
        let (path, lock) = locked(target, make, Option::as_ref)?;
        Ok(Self {
            path: Some(path),
            target: target.to_owned(),
            _lock: lock,
        })
    }

    /// The folder under its temporary name.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(&self.target)
    }

    /// Gives the folder the name it was made for.
    ///
    /// # Errors
    /// When that name is taken by a file or by a folder that is not empty; the temporary one is removed.
    pub fn keep(mut self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        std::fs::rename(path, &self.target)
            .map_err(|error| Error::io("write", &self.target, error))?;
        self.path = None;
        sync_folder(parent_of(&self.target));
        Ok(())
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Makes something under a temporary name and locks it.
fn locked<Made>(
    target: &Path,
    make: impl Fn(&Path) -> std::io::Result<Made>,
    lockable: impl Fn(&Made) -> Option<&File>,
) -> Result<(PathBuf, Made)> {
    let fail = |error| Error::io("write", target, error);
    let name = target.file_name().ok_or_else(|| {
        Error::Invalid(format!(
            "cannot write {}: not a file name",
            target.display()
        ))
    })?;
    sweep(parent_of(target));
    for _ in 0..TRIES {
        let path = target.with_file_name(temporary_name(name));
        let made = match make(&path) {
            Ok(made) => made,
            // A process of the same number, on another machine that shares the disk, took the name.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(fail(error)),
        };
        match lockable(&made).map(File::try_lock) {
            // Between its making and its locking another process may have taken it for an abandoned one.
            Some(Ok(())) if !path.exists() => {}
            Some(Err(TryLockError::WouldBlock)) => {}
            // Where nothing can be locked, nobody can lock it to remove it either.
            None | Some(Ok(()) | Err(TryLockError::Error(_))) => return Ok((path, made)),
        }
    }
    Err(fail(std::io::Error::other(
        "another program keeps removing its temporary file",
    )))
}

fn temporary_name(name: &std::ffi::OsStr) -> std::ffi::OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = std::ffi::OsString::from(".");
    if name.len() <= LONGEST_NAME {
        temporary.push(name);
    } else {
        temporary.push(name.to_string_lossy().chars().take(32).collect::<String>());
    }
    temporary.push(format!(".{}-{unique}.tmp", std::process::id()));
    temporary
}

/// `.NAME.PROCESS-NUMBER.tmp`
fn is_temporary_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .and_then(|name| name.rsplit_once('.'))
        .is_some_and(|(name, unique)| {
            !name.is_empty()
                && unique
                    .split_once('-')
                    .is_some_and(|(process, count)| number(process) && number(count))
        })
}

/// Removes what killed runs left in a folder; once a folder and process, as a run may write many files.
fn sweep(folder: &Path) {
    static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let Ok(folder) = std::fs::canonicalize(folder) else {
        return;
    };
    let mut swept = SWEPT.lock().unwrap_or_else(|poison| poison.into_inner());
    if swept.get_or_insert_default().insert(folder.clone()) {
        remove_abandoned(&folder);
    }
}

fn remove_abandoned(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let ours = entry.file_name().to_str().is_some_and(is_temporary_name);
        if !ours || !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if file.try_lock().is_ok() {
            let _ = match kind.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
        }
    }
}

/// The folder that holds a path.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// A rename lasts only once the folder is on disk; not all systems can do this.
pub(super) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_our_names_are_temporary() {
        for name in [".out.safetensors.123-0.tmp", ".a.1-22.tmp", ".a.b.1-2.tmp"] {
            assert!(is_temporary_name(name), "{name}");
        }
        for name in [
            "out.1-2.tmp",
            ".out.tmp",
            ".out.12.tmp",
            ".out.a-1.tmp",
            ".out.1-.tmp",
            ".1-2.tmp",
            ".out.1-2.tmp2",
        ] {
            assert!(!is_temporary_name(name), "{name}");
        }
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_a_living_one_holds_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path(".out.bin.999999-0.tmp"), [0; 100]).unwrap();
        std::fs::create_dir(path(".run.999999-1.tmp")).unwrap();
        std::fs::write(path(".run.999999-1.tmp/part"), b"x").unwrap();
        std::fs::write(path(".notes.tmp"), b"somebody else's").unwrap();
        let living = File::create(path(".other.1-0.tmp")).unwrap();
        living.lock().unwrap();
        crate::write_atomic(&path("out.bin"), b"whole").unwrap();
        assert_eq!(
            names(folder.path()),
            [".notes.tmp", ".other.1-0.tmp", "out.bin"]
        );
    }

    #[test]
    fn a_name_that_a_process_elsewhere_took_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let taken = std::cell::Cell::new(2);
        let make = |path: &Path| {
            if taken.get() > 0 {
                taken.set(taken.get() - 1);
                std::fs::write(path, b"another's").unwrap();
            }
            OpenOptions::new().write(true).create_new(true).open(path)
        };
        let made = locked(&folder.path().join("a"), make, |file| Some(file));
        assert_eq!(std::fs::read(made.unwrap().0).unwrap(), b"");
    }

    #[test]
    fn a_folder_is_kept_or_gone() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("result");
        let folder = TemporaryFolder::create(&target).unwrap();
        std::fs::write(folder.path().join("a"), b"1").unwrap();
        assert_ne!(folder.path(), target);
        remove_abandoned(parent.path());
        assert!(folder.path().exists(), "its lock protects it");
        drop(folder);
        assert!(names(parent.path()).is_empty());

        let folder = TemporaryFolder::create(&target).unwrap();
        std::fs::write(folder.path().join("a"), b"1").unwrap();
        folder.keep().unwrap();
        assert_eq!(names(&target), ["a"]);

        let error = TemporaryFolder::create(&target)
            .unwrap()
            .keep()
            .unwrap_err();
        assert!(error.to_string().contains("result"), "{error}");
        assert_eq!(names(parent.path()), ["result"]);
    }

    #[test]
    fn a_name_of_full_length_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let name = "ü".repeat(127);
        crate::write_atomic(&folder.path().join(&name), b"x").unwrap();
        assert_eq!(names(folder.path()), [name]);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        assert!(TemporaryFolder::create(Path::new("/")).is_err());
        assert!(Temporary::create(Path::new("..")).is_err());
    }
}
