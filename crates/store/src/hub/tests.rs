//! The cache is a temporary folder and the hub a small server on this machine.

use std::collections::BTreeMap;
use std::path::Path;

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

#[cfg(feature = "hub")]
mod network {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Path to status and body; what was asked for.
    #[derive(Default)]
    struct Site {
        pages: BTreeMap<String, (u16, Vec<u8>)>,
        /// Paths whose first answer stops half-way.
        flaky: Vec<String>,
        requests: Vec<String>,
    }

    /// Serves until the test's process ends; one request a connection.
    fn serve(site: Arc<Mutex<Site>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                let path = first.split(' ').nth(1).unwrap().to_owned();
                let mut start = None;
                let mut token = String::new();
                for line in lines
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                {
                    let line = line.to_ascii_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        start = range.trim_end_matches('-').parse::<usize>().ok();
                    }
                    if let Some(value) = line.strip_prefix("authorization: ") {
                        token = format!(" [{value}]");
                    }
                }
                let mut site = site.lock().unwrap();
                let asked = format!(
                    "{path}{}{token}",
                    start.map_or(String::new(), |at| format!(" from {at}"))
                );
                site.requests.push(asked);
                let page = site.pages.get(&path).cloned();
                let (mut status, mut body) = page.unwrap_or((404, b"absent".to_vec()));
                if let Some(start) = start {
                    status = 206;
                    body.drain(..start);
                }
                let length = body.len();
                if let Some(index) = site.flaky.iter().position(|flaky| *flaky == path) {
                    site.flaky.remove(index);
                    body.truncate(length / 2);
                }
                drop(site);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // A client that has seen enough may hang up.
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            }
        });
        endpoint
    }

    fn listing(files: &[(&str, usize)]) -> Vec<u8> {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, size)| serde_json::json!({"rfilename": name, "size": size}))
            .collect();
        serde_json::json!({"sha": COMMIT, "siblings": siblings})
            .to_string()
            .into_bytes()
    }

    const LIST: &str = "/api/models/owner/name/revision/main?blobs=true";

    fn site(files: &[(&str, &[u8])]) -> Site {
        let sizes: Vec<_> = files
            .iter()
            .map(|(name, bytes)| (*name, bytes.len()))
            .collect();
        let mut site = Site::default();
        site.pages.insert(LIST.into(), (200, listing(&sizes)));
        for (name, bytes) in files {
            let path = format!("/owner/name/resolve/{COMMIT}/{}", name.replace(' ', "%20"));
            site.pages.insert(path, (200, bytes.to_vec()));
        }
        site
    }

    #[derive(Default)]
    struct Counter(Mutex<(Option<u64>, u64, Vec<String>, bool)>);

    impl HubProgress for Counter {
        fn begin(&self, _model: &str, files: usize, bytes: Option<u64>) {
            assert!(files > 0);
            self.0.lock().unwrap().0 = bytes;
        }
        fn file(&self, name: &str, _bytes: Option<u64>) {
            self.0.lock().unwrap().2.push(name.to_owned());
        }
        fn advance(&self, bytes: u64) {
            self.0.lock().unwrap().1 += bytes;
        }
        fn end(&self) {
            self.0.lock().unwrap().3 = true;
        }
    }

    #[test]
    fn a_model_is_downloaded_once_and_a_broken_connection_is_resumed() {
        let cache = tempfile::tempdir().unwrap();
        let weights = vec![7u8; 100_000];
        let flaky = format!("/owner/name/resolve/{COMMIT}/model.safetensors");
        let mut site = site(&[
            ("config.json", b"{}"),
            ("model.safetensors", &weights),
            ("model.fp16.safetensors", b"unwanted"),
            ("pytorch_model.bin", b"unwanted"),
            ("empty file.txt", b""),
        ]);
        site.flaky.push(flaky.clone());
        let site = Arc::new(Mutex::new(site));
        let mut options = options(cache.path(), &serve(site.clone()));
        options.token = Some("secret".to_owned());
        let progress = Counter::default();
        let folder = resolve("owner/name", &options, &progress).unwrap();

        assert_eq!(
            std::fs::read(folder.join("model.safetensors")).unwrap(),
            weights
        );
        assert_eq!(
            crate::ModelFolder::Disk(folder.clone()).list(),
            ["config.json", "empty file.txt", "model.safetensors"]
        );
        let (total, seen, files, ended) = std::mem::take(&mut *progress.0.lock().unwrap());
        assert_eq!(
            (total, seen, files.len(), ended),
            (Some(100_002), 100_002, 3, true)
        );
        let requests = site.lock().unwrap().requests.clone();
        assert!(
            requests.contains(&format!("{flaky} from 50000 [bearer secret]")),
            "{requests:?}"
        );
        assert!(
            std::fs::read_dir(&folder).unwrap().count() == 3,
            "no partial file stays"
        );

        assert_eq!(
            resolve("owner/name", &offline(cache.path()), &NoProgress).unwrap(),
            folder
        );
        assert_eq!(
            resolve("owner/name", &options, &NoProgress).unwrap(),
            folder
        );
        assert_eq!(
            site.lock().unwrap().requests.len(),
            requests.len(),
            "the cache answers"
        );
    }

    fn problem(site: Site) -> (String, tempfile::TempDir) {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path(), &serve(Arc::new(Mutex::new(site))));
        let error = resolve("owner/name", &options, &NoProgress)
            .unwrap_err()
            .to_string();
        assert!(!cache.path().join("models--owner--name/refs/main").exists());
        (error, cache)
    }

    #[test]
    fn names_that_leave_the_folder_are_refused_before_anything_is_written() {
        for name in [
            "../../evil.json",
            "/evil.json",
            "a//evil.json",
            "a\\evil.json",
        ] {
            let (error, cache) = problem(site(&[(name, b"{}"), ("model.safetensors", b"x")]));
            assert!(error.contains("not a file name inside"), "{error}");
            assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let answer = |status, body: &[u8]| {
            let mut site = Site::default();
            site.pages.insert(LIST.into(), (status, body.to_vec()));
            problem(site).0
        };
        assert!(answer(200, b"<html>").contains("file list"));
        assert!(answer(200, br#"{"sha": "../../x", "siblings": []}"#).contains("commit"));
        assert!(answer(200, &listing(&[])).contains("no model files"));
        assert!(answer(401, b"").contains("HF_TOKEN"));
        assert!(answer(404, b"").contains("404"));
    }

    #[test]
    fn more_bytes_than_listed_are_refused() {
        let mut site = site(&[("model.safetensors", b"0123456789")]);
        site.pages
            .insert(LIST.into(), (200, listing(&[("model.safetensors", 5)])));
        let (error, _cache) = problem(site);
        assert!(error.contains("more than the 5 bytes"), "{error}");
    }
}
