//! The cache is a temporary folder and the hub a small server on this machine.

use std::collections::BTreeMap;
use std::path::Path;

use super::options::DEFAULT_ENDPOINT;
use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn options(cache: &Path, endpoint: &str) -> HubOptions {
    HubOptions {
        cache: cache.to_owned(),
        endpoint: endpoint.to_owned(),
        token: None,
        offline: false,
        revision: "main".to_owned(),
        variant: None,
    }
}

fn offline(cache: &Path) -> HubOptions {
    HubOptions {
        offline: true,
        ..options(cache, "http://unused.invalid")
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn environment_is_read_like_the_python_tools_do() {
    let read = |pairs: &[(&str, &str)]| {
        let table: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        HubOptions::from_lookup(|name| table.get(name).map(|value| (*value).to_owned()))
    };
    let plain = read(&[("HOME", "/nowhere")]);
    assert_eq!(plain.cache, Path::new("/nowhere/.cache/huggingface/hub"));
    assert_eq!(plain.endpoint, DEFAULT_ENDPOINT);
    assert!(!plain.offline && plain.token.is_none());
    let set = read(&[
        ("HOME", "/nowhere"),
        ("HF_HOME", "~/h"),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_TOKEN", " secret\n"),
    ]);
    assert_eq!(set.cache, Path::new("/nowhere/h/hub"));
    assert_eq!(set.endpoint, "http://mirror");
    assert_eq!(set.token.as_deref(), Some("secret"));
    assert!(set.offline);
    assert_eq!(
        read(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache,
        Path::new("/c")
    );
    assert!(!read(&[("HF_HUB_OFFLINE", "0")]).offline);
}

#[test]
fn paths_win_and_odd_ids_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(
        resolve(path, &offline(folder.path()), &NoProgress).unwrap(),
        folder.path()
    );
    for id in [
        "",
        "name",
        "a/b/c",
        "../b",
        "a/..",
        "a/b--c",
        "a\\b/c",
        "a/b?x",
        "/absent/file",
        "a/b.git",
        "a/b\n",
        "a/.b",
        "./absent",
        "a /b",
        "ä/b",
    ] {
        let error = resolve(id, &offline(folder.path()), &NoProgress)
            .unwrap_err()
            .to_string();
        assert!(error.contains("owner/name"), "{id:?}: {error}");
    }
    for revision in ["../x", "", "a//b", "..", "a b"] {
        let odd = HubOptions {
            revision: revision.into(),
            ..offline(folder.path())
        };
        let error = resolve("a/b", &odd, &NoProgress).unwrap_err().to_string();
        assert!(error.contains("branch"), "{revision:?}: {error}");
    }
}

#[test]
fn the_cache_is_used_only_when_it_is_whole() {
    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--owner--name");
    let snapshot = model.join("snapshots").join(COMMIT);
    let resolve = || resolve("owner/name", &offline(cache.path()), &NoProgress);
    let problem = || resolve().unwrap_err().to_string();
    assert!(problem().contains("is not in the cache"), "{}", problem());
    assert!(problem().contains("HF_HUB_OFFLINE"));

    put(&model.join("refs/main"), b"../../../../etc");
    assert!(problem().contains("is not in the cache"));
    put(&model.join("refs/main"), COMMIT.as_bytes());
    put(
        &snapshot.join("model_index.json"),
        br#"{"_class_name": "P", "vae": ["diffusers", "A"], "text": ["transformers", "B"],
            "scheduler": ["diffusers", "C"], "none": [null, null], "flag": true}"#,
    );
    assert!(problem().contains("has no weights"), "{}", problem());
    put(&snapshot.join("vae/config.json"), b"{}");
    put(
        &snapshot.join("vae/diffusion_pytorch_model.safetensors"),
        b"x",
    );
    assert!(problem().contains("lacks the folder text"), "{}", problem());
    put(&snapshot.join("text/config.json"), b"{}");
    assert!(
        problem().contains("lacks the weights of text"),
        "{}",
        problem()
    );
    put(
        &snapshot.join("text/model.safetensors.index.json"),
        br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
    );
    put(&snapshot.join("text/model-1.safetensors"), b"x");
    assert!(
        problem().contains("lacks text/model-2.safetensors"),
        "{}",
        problem()
    );
    put(&snapshot.join("text/model-2.safetensors"), b"x");
    put(
        &snapshot.join("text/model.safetensors.index.fp16.json"),
        br#"{"weight_map": {"a": "z"}}"#,
    );
    put(
        &snapshot.join("text/pytorch_model.bin.index.json"),
        br#"{"weight_map": {"a": "z"}}"#,
    );
    assert!(
        problem().contains("lacks the folder scheduler"),
        "{}",
        problem()
    );
    put(&snapshot.join("scheduler/scheduler_config.json"), b"{}");
    assert_eq!(resolve().unwrap(), snapshot);
}

#[test]
fn a_cache_without_a_reference_is_used_as_the_python_tools_leave_it() {
    let other = "f".repeat(40);
    for reference in [None, Some(other.as_str())] {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--owner--name");
        let snapshot = |commit: &str| model.join("snapshots").join(commit);
        if let Some(commit) = reference {
            put(&model.join("refs/main"), commit.as_bytes());
        }
        let find = |id: &str| resolve(id, &offline(cache.path()), &NoProgress);
        // As the Python tools download: links into blobs, incomplete ones hidden there.
        put(&model.join("blobs/aa"), b"weights");
        put(&model.join("blobs/bb.incomplete"), b"we");
        put(&snapshot(COMMIT).join("config.json"), b"{}");
        assert!(find("owner/name").is_err(), "no weights");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../../blobs/aa", snapshot(COMMIT).join("model.safetensors"))
            .unwrap();
        #[cfg(not(unix))]
        put(&snapshot(COMMIT).join("model.safetensors"), b"weights");
        assert_eq!(find("owner/name").unwrap(), snapshot(COMMIT));
        assert_eq!(
            find(&format!("owner/name@{COMMIT}")).unwrap(),
            snapshot(COMMIT)
        );
        assert_eq!(find("owner/name@0123456789").unwrap(), snapshot(COMMIT));
        assert!(
            find("owner/name@v1").is_err(),
            "a revision is not replaced by another"
        );

        // Another complete one: which is meant?
        let third = "1".repeat(40);
        put(&snapshot(&third).join("model.safetensors"), b"weights");
        let message = find("owner/name").unwrap_err().to_string();
        assert!(
            message.contains(COMMIT) && message.contains(&third),
            "{message}"
        );
        put(&model.join("refs/main"), format!("{third}\n").as_bytes());
        assert_eq!(
            find("owner/name").unwrap(),
            snapshot(&third),
            "a reference that moved"
        );
    }
}

#[cfg(feature = "hub")]
mod network;
