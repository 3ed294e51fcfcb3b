//! Links in the cache that lead elsewhere: nothing is written through them.

use std::os::unix::fs::symlink;

use super::*;

fn snapshot(cache: &tempfile::TempDir) -> std::path::PathBuf {
    let model = cache.path().join("models--owner--name");
    model.join("snapshots").join(COMMIT)
}

#[test]
fn nothing_is_written_through_a_link_out_of_the_cache() {
    let outside = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 2] = [("vae/config.json", b"{}"), ("vae/model.safetensors", b"x")];
    let (_site, cache, options) = start(site(&files));
    std::fs::create_dir_all(snapshot(&cache)).unwrap();
    symlink(outside.path(), snapshot(&cache).join("vae")).unwrap();
    let error = resolve("owner/name", &options, &NoProgress).unwrap_err();
    assert!(
        error.to_string().contains("leads out of the cache"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // Within the cache, as somebody may have moved it to another disk, links are no matter.
    std::fs::remove_file(snapshot(&cache).join("vae")).unwrap();
    std::fs::create_dir(snapshot(&cache).join("other")).unwrap();
    symlink("other", snapshot(&cache).join("vae")).unwrap();
    resolve("owner/name", &options, &NoProgress).unwrap();
}

#[test]
fn a_link_in_place_of_a_half_file_is_replaced() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, b"keep me").unwrap();
    let (_site, cache, options) = start(site(&[("model.safetensors", b"weights")]));
    std::fs::create_dir_all(snapshot(&cache)).unwrap();
    let half = snapshot(&cache).join(".model.safetensors.incomplete");
    symlink(&precious, half).unwrap();
    let folder = resolve("owner/name", &options, &NoProgress).unwrap();
    assert_eq!(std::fs::read(&precious).unwrap(), b"keep me");
    let weights = folder.join("model.safetensors");
    assert_eq!(std::fs::read(&weights).unwrap(), b"weights");
    assert!(!weights.symlink_metadata().unwrap().is_symlink());
}
