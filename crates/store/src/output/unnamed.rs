//! A file that gets its name only once it is whole: a process that is killed before leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags};
use rustix::io::Errno;

use super::temporary::{parent_of, sync_folder};
use crate::{Error, Result};

/// Writes `bytes` and calls them `path`, unless something has that name: false then. `None` where the disk
/// knows no files without a name, or no way to give them one; nothing is changed then.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<Option<bool>> {
    let fail = |error| Error::io("write", path, error);
    let folder = parent_of(path);
    let flags = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(folder);
    // Network disks, and kernels of long ago. What else is wrong shows when a name is tried.
    let Ok(mut file) = opened else {
        return Ok(None);
    };
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    match name(&file, path) {
        Ok(()) => {
            sync_folder(folder);
            Ok(Some(true))
        }
        Err(Errno::EXIST) => Ok(Some(false)),
        // No /proc, or a disk that knows one name a file only.
        Err(_) => Ok(None),
    }
}

/// As linkat(2) describes it for files without a name, which needs no privilege.
fn name(file: &File, path: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let Some(given) = super::write_new(&path, b"one").unwrap() else {
            return;
        };
        assert!(given);
        assert_eq!(super::write_new(&path, b"two").unwrap(), Some(false));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
