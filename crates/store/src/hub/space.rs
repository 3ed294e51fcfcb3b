//! Whether a download fits the disk, before its first byte is asked for.

use std::path::Path;

use super::client::Sibling;
use super::download::Partial;
use crate::{Error, Result};

/// Refuses files that together need more than the disk under `snapshot` has left; where a size isn't
/// announced or the system doesn't say what is left, only writing tells.
///
/// # Errors
/// When they do not fit, with both numbers.
pub(super) fn check_space(snapshot: &Path, files: &[&Sibling]) -> Result<()> {
    let missing = files.iter().try_fold(0u64, |sum, file| {
        let target = snapshot.join(&file.rfilename);
        let present = [target.clone(), Partial::path(&target)]
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .max();
        sum.checked_add(file.size?.saturating_sub(present.unwrap_or(0)))
    });
    match (missing, available(snapshot)) {
        (Some(missing), Some(left)) if missing > left => Err(too_large(snapshot, missing, left)),
        _ => Ok(()),
    }
}

fn too_large(snapshot: &Path, missing: u64, left: u64) -> Error {
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    Error::Hub(format!(
        "{} more would not fit: the disk of {} has {} left. Free some, or set HF_HOME to \
         another disk",
        gigabytes(missing),
        snapshot.display(),
        gigabytes(left)
    ))
}

#[cfg(unix)]
fn available(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn available(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_needs_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, size: Option<u64>| -> Sibling {
            serde_json::from_value(serde_json::json!({"rfilename": name, "size": size})).unwrap()
        };
        let petabyte = 1 << 50;
        let (large, unknown) = (file("a.bin", Some(petabyte)), file("b.bin", None));
        let error = check_space(folder.path(), &[&large])
            .unwrap_err()
            .to_string();
        assert!(error.contains("1125899.9 GB more would not fit"), "{error}");
        assert!(error.contains(" GB left."), "{error}");
        check_space(folder.path(), &[&large, &unknown]).unwrap();
        for name in ["a.bin", ".a.bin.incomplete"] {
            let sparse = std::fs::File::create(folder.path().join(name)).unwrap();
            sparse.set_len(1 << 43).unwrap();
            let rest = file("a.bin", Some((1 << 43) + 1000));
            check_space(folder.path(), &[&rest]).unwrap();
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}
