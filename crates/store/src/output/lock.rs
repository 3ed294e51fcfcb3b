//! A folder that one process at a time may write into.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

/// The file in the folder that is locked; it holds who has the lock.
const LOCK_FILE: &str = ".brisk.lock";
/// Time between two looks at a lock that another process holds.
const PATIENCE: Duration = Duration::from_millis(200);

/// A folder in use by this process. The system takes the lock back when the process ends, however it
/// ends; on disks that know no locks it protects nothing.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    file: File,
}

impl FolderLock {
    /// Takes the lock of an existing folder.
    ///
    /// # Errors
    /// [`Error::InUse`], with who holds it, when another process has the lock; and when the folder cannot
    /// be written.
    pub fn take(folder: &Path) -> Result<Self> {
        match Self::attempt(folder)? {
            Ok(lock) => Ok(lock),
            Err(holder) => Err(Error::InUse {
                folder: folder.display().to_string(),
                holder,
            }),
        }
    }

    /// Takes the lock, waiting until it is free. `waiting` is told who holds it, again and again; when it
    /// answers false, waiting ends.
    ///
    /// # Errors
    /// As [`FolderLock::take`], [`Error::InUse`] when `waiting` gave up.
    pub fn wait(folder: &Path, mut waiting: impl FnMut(&str) -> bool) -> Result<Self> {
        loop {
            match Self::attempt(folder)? {
                Ok(lock) => return Ok(lock),
                Err(holder) if !waiting(&holder) => {
                    return Err(Error::InUse {
                        folder: folder.display().to_string(),
                        holder,
                    });
                }
                Err(_) => std::thread::sleep(PATIENCE),
            }
        }
    }

    /// The lock, or who holds it.
    fn attempt(folder: &Path) -> Result<Result<Self, String>> {
        let path = folder.join(LOCK_FILE);
        let fail = |error| Error::io("lock", &path, error);
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(fail)?;
            match file.try_lock() {
                Ok(()) if !is_still_at(&file, &path) => continue, // its last holder removed it meanwhile
                Ok(()) | Err(TryLockError::Error(_)) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Where locks keep others from reading, too, nothing is known of the holder.
                    let _ = (&mut file).take(256).read_to_string(&mut holder);
                    return Ok(Err(shown_holder(&holder)));
                }
            }
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(identity().as_bytes()))
                .map_err(fail)?;
            return Ok(Ok(Self { path, file }));
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is locked: whoever opened it meanwhile sees that it is gone, and makes a new one.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// This process, as [`shown_holder`] reads it.
fn identity() -> String {
    format!("{} {}\n", std::process::id(), host_name())
}

/// What a lock file says about its holder.
fn shown_holder(text: &str) -> String {
    let mut words = text.split_whitespace();
    let process = words.next().filter(|word| word.parse::<u32>().is_ok());
    match (process, words.next()) {
        (None, _) => "another process".to_owned(),
        (Some(process), Some(host)) if host != host_name() => {
            let host: String = host.escape_default().take(80).collect();
            format!("process {process} on {host}")
        }
        (Some(process), _) => format!("process {process}"),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Whether a path still names an open file.
pub(super) fn is_still_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let same =
            |a: std::fs::Metadata, b: std::fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(open), Ok(named)) => same(open, named),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        let message = error.to_string();
        let process = format!("process {}", std::process::id());
        assert!(
            message.contains(&process) && message.contains(&folder.path().display().to_string()),
            "{message}"
        );
        drop(lock);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn what_a_killed_holder_wrote_does_not_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_FILE), "1 elsewhere\n").unwrap();
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn waiting_ends_when_the_lock_is_free_or_patience_is_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Some(FolderLock::take(folder.path()).unwrap());
        let mut told = Vec::new();
        let given_up = FolderLock::wait(folder.path(), |holder| {
            told.push(holder.to_owned());
            told.len() < 2
        });
        assert!(matches!(given_up, Err(Error::InUse { .. })));
        assert_eq!(told.len(), 2);
        FolderLock::wait(folder.path(), |_| {
            lock = None;
            true
        })
        .unwrap();
    }

    #[test]
    fn holders_are_named_as_far_as_they_are_known() {
        assert_eq!(shown_holder(""), "another process");
        assert_eq!(shown_holder("x y"), "another process");
        assert_eq!(shown_holder("17 "), "process 17");
        assert_eq!(
            shown_holder("17 far\x1b-away"),
            "process 17 on far\\u{1b}-away"
        );
        assert_eq!(
            shown_holder(&identity()),
            format!("process {}", std::process::id())
        );
    }
}
