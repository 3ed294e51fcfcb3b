//! Downloads, from a hub that is a small server on this machine.

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
    /// More header lines of an answer, by path.
    headers: BTreeMap<String, String>,
    /// Whether every answer to a request for a range holds the beginning, and says so.
    wrong_range: bool,
    /// Answers of this path, first to last; then that of `pages`.
    before: Vec<(String, u16)>,
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
            if let Some(at) = site.before.iter().position(|(of, _)| *of == path) {
                status = site.before.remove(at).1;
            }
            let mut headers = site.headers.get(&path).cloned().unwrap_or_default();
            if let Some(start) = start
                && status == 200
            {
                status = 206;
                let total = body.len();
                let first = if site.wrong_range { 0 } else { start };
                body = body[first..first + total - start].to_vec();
                let last = (first + body.len()).saturating_sub(1);
                headers += &format!("Content-Range: bytes {first}-{last}/{total}\r\n");
            }
            let length = body.len();
            if let Some(index) = site.flaky.iter().position(|flaky| *flaky == path) {
                site.flaky.remove(index);
                body.truncate(length / 2);
            }
            drop(site);
            let head = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
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
    fn retract(&self, bytes: u64) {
        self.0.lock().unwrap().1 -= bytes;
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

const FILE: &str = "/owner/name/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors";

fn start(site: Site) -> (Arc<Mutex<Site>>, tempfile::TempDir, HubOptions) {
    let cache = tempfile::tempdir().unwrap();
    let site = Arc::new(Mutex::new(site));
    let options = options(cache.path(), &serve(site.clone()));
    (site, cache, options)
}

fn with_hash(files: &[(&str, &[u8])], hash: &str) -> Site {
    let mut site = site(files);
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            serde_json::json!({"rfilename": name, "size": bytes.len(),
                "lfs": {"sha256": hash, "size": bytes.len(), "pointerSize": 130}})
        })
        .collect();
    let listing = serde_json::json!({"sha": COMMIT, "siblings": siblings});
    site.pages
        .insert(LIST.into(), (200, listing.to_string().into_bytes()));
    site
}

#[test]
fn a_part_that_was_not_asked_for_is_never_taken() {
    let weights: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    // Broken once: the part is refused, all of it is fetched anew.
    let mut one = site(&[("model.safetensors", &weights)]);
    one.flaky.push(FILE.into());
    one.wrong_range = true;
    let (_site, _cache, options) = start(one);
    let counter = Counter::default();
    let folder = resolve("owner/name", &options, &counter).unwrap();
    assert_eq!(
        std::fs::read(folder.join("model.safetensors")).unwrap(),
        weights
    );
    assert_eq!(counter.0.lock().unwrap().1, weights.len() as u64);
    // Broken each time: refused.
    let mut each = site(&[("model.safetensors", &weights)]);
    each.flaky = vec![FILE.into(); 9];
    each.wrong_range = true;
    let (error, cache) = problem(each);
    assert!(error.contains("cannot download owner/name"), "{error}");
    let snapshot = cache
        .path()
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
}

#[test]
fn a_file_is_what_the_hub_says_it_is() {
    let right = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";
    let (site, _cache, options) = start(with_hash(&[("model.safetensors", b"weights")], "x"));
    resolve("owner/name", &options, &NoProgress).unwrap();
    drop(site);
    let changed = with_hash(&[("model.safetensors", b"WEIGHTS")], right);
    let (error, cache) = problem(changed);
    assert!(
        error.contains("SHA-256") && error.contains(right),
        "{error}"
    );
    let snapshot = cache
        .path()
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
    assert!(!snapshot.join(".model.safetensors.incomplete").exists());

    let good = with_hash(&[("model.safetensors", b"weights")], right);
    let (_site, _cache, options) = start(good);
    resolve("owner/name", &options, &NoProgress).unwrap();
}

#[test]
fn what_an_earlier_try_left_is_gone_on_with_where_it_is_right() {
    let right = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";
    for (left, asked) in [
        (&b"wei"[..], " from 3"),
        (b"bad", " from 3"),
        (b"far too long", ""),
    ] {
        let (site, cache, options) = start(with_hash(&[("model.safetensors", b"weights")], right));
        let snapshot = cache
            .path()
            .join("models--owner--name/snapshots")
            .join(COMMIT);
        put(&snapshot.join(".model.safetensors.incomplete"), left);
        let folder = resolve("owner/name", &options, &NoProgress).unwrap();
        assert_eq!(
            std::fs::read(folder.join("model.safetensors")).unwrap(),
            b"weights"
        );
        let requests = site.lock().unwrap().requests.clone();
        assert!(requests.contains(&format!("{FILE}{asked}")), "{requests:?}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let refuse = |status, headers: &str, token: Option<&str>| {
        let mut site = Site::default();
        site.pages.insert(LIST.into(), (status, Vec::new()));
        site.headers.insert(LIST.into(), headers.into());
        let (_site, _cache, mut options) = start(site);
        options.token = token.map(str::to_owned);
        resolve("owner/name", &options, &NoProgress)
            .unwrap_err()
            .to_string()
    };
    let gated = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted\r\n";
    for (message, named) in [
        (refuse(401, "", None), &["HF_TOKEN", "check the name"][..]),
        (
            refuse(401, gated, None),
            &["licence", "HF_TOKEN", "Access is restricted"],
        ),
        (
            refuse(403, gated, Some("t")),
            &["refuses this token", "licence"],
        ),
        (
            refuse(404, "X-Error-Code: RevisionNotFound\r\n", None),
            &["no branch, tag or commit \"main\""],
        ),
        (
            refuse(429, "Retry-After: 9999\r\n", None),
            &["9999 seconds", "HF_TOKEN"],
        ),
        (refuse(418, "", None), &["HTTP 418"]),
        (refuse(200, "", Some("a b")), &["token holds spaces"]),
    ] {
        for fragment in named {
            assert!(message.contains(fragment), "{message}");
        }
    }
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_says() {
    let mut busy = site(&[("model.safetensors", b"x")]);
    busy.before = vec![(LIST.into(), 429)];
    busy.headers
        .insert(LIST.into(), "Retry-After: 1\r\n".into());
    let (_site, _cache, options) = start(busy);
    let began = std::time::Instant::now();
    let notes = Notes::default();
    resolve("owner/name", &options, &notes).unwrap();
    assert!(began.elapsed().as_secs_f64() >= 1.0);
    assert!(notes.told().contains("wait 1 seconds"), "{}", notes.told());
}

#[test]
fn a_file_without_an_announced_size_has_an_end() {
    let mut site = site(&[("model.safetensors", b"x")]);
    let unsized_files =
        serde_json::json!({"sha": COMMIT, "siblings": [{"rfilename": "model.safetensors"}]});
    site.pages
        .insert(LIST.into(), (200, unsized_files.to_string().into_bytes()));
    let (_site, _cache, options) = start(site);
    let folder = resolve("owner/name", &options, &NoProgress).unwrap();
    assert_eq!(
        std::fs::read(folder.join("model.safetensors")).unwrap(),
        b"x"
    );
    let names: Vec<String> = (0..20_000).map(|i| format!("{i}.json")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let mut many = Site::default();
    many.pages.insert(LIST.into(), (200, listing(&files)));
    let (error, _cache) = problem(many);
    assert!(error.contains("20000 files"), "{error}");
}

#[test]
fn a_revision_of_the_id_is_asked_for_and_remembered() {
    let mut site = site(&[("model.safetensors", b"x")]);
    let list = site.pages.remove(LIST).unwrap();
    let of_tag = LIST.replace("main", "v1.0");
    site.pages.insert(of_tag.clone(), list);
    let (site, cache, options) = start(site);
    let folder = resolve("owner/name@v1.0", &options, &NoProgress).unwrap();
    let model = cache.path().join("models--owner--name");
    assert_eq!(
        std::fs::read_to_string(model.join("refs/v1.0")).unwrap(),
        COMMIT
    );
    assert!(!model.join("refs/main").exists());
    let offline = offline(cache.path());
    for id in [
        "owner/name@v1.0",
        &format!("owner/name@{COMMIT}"),
        "owner/name@0123456",
    ] {
        assert_eq!(resolve(id, &offline, &NoProgress).unwrap(), folder, "{id}");
    }
    let message = resolve("owner/name@v2", &offline, &NoProgress)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("brisk models pull owner/name@v2"),
        "{message}"
    );
    assert_eq!(site.lock().unwrap().requests.len(), 2);
}

#[test]
fn pulling_follows_a_branch_that_moved() {
    let (_site, cache, options) = start(site(&[("model.safetensors", b"new"), ("a.json", b"{}")]));
    let model = cache.path().join("models--owner--name");
    let old = "1".repeat(40);
    put(&model.join("refs/main"), old.as_bytes());
    put(
        &model.join("snapshots").join(&old).join("model.safetensors"),
        b"old",
    );
    let before = resolve("owner/name", &options, &NoProgress).unwrap();
    assert!(before.ends_with(&old), "the cache answers");
    for _ in 0..2 {
        let folder = pull("owner/name", &options, &NoProgress).unwrap();
        assert!(folder.ends_with(COMMIT));
        assert_eq!(
            std::fs::read(folder.join("model.safetensors")).unwrap(),
            b"new"
        );
    }
    assert!(
        resolve("owner/name", &options, &NoProgress)
            .unwrap()
            .ends_with(COMMIT)
    );
    let file = pull("owner/name/model.safetensors", &options, &NoProgress).unwrap();
    assert!(file.is_file());
    let message = pull("owner/name", &offline(cache.path()), &NoProgress).unwrap_err();
    assert!(message.to_string().contains("HF_HUB_OFFLINE"), "{message}");
}

#[test]
fn a_locked_model_says_who_downloads_it_and_waiting_can_be_stopped() {
    let (_site, cache, options) = start(site(&[("model.safetensors", b"x")]));
    let model = cache.path().join("models--owner--name");
    std::fs::create_dir_all(&model).unwrap();
    let lock = crate::output::FolderLock::take(&model).unwrap();
    let notes = Notes {
        stop_when_told: true,
        ..Notes::default()
    };
    let error = resolve("owner/name", &options, &notes)
        .unwrap_err()
        .to_string();
    assert!(error.contains("in use by process"), "{error}");
    assert!(
        notes.told().contains("another brisk downloads owner/name"),
        "{}",
        notes.told()
    );
    drop(lock);
    resolve("owner/name", &options, &NoProgress).unwrap();
}

#[test]
fn a_snapshot_at_hand_stands_in_when_the_hub_is_away() {
    let (_site, cache, mut options) = start(Site::default());
    options.endpoint = "http://127.0.0.1:1".to_owned();
    let model = cache.path().join("models--owner--name");
    put(
        &model
            .join("snapshots")
            .join(COMMIT)
            .join("model.safetensors"),
        b"x",
    );
    let notes = Notes::default();
    let found = resolve("owner/name", &options, &notes).unwrap();
    assert!(found.ends_with(COMMIT));
    assert!(notes.told().contains(COMMIT), "{}", notes.told());
    assert!(resolve("owner/name@other", &options, &notes).is_err());
}

#[test]
fn one_file_of_weights_by_its_repository_or_its_name() {
    let (_site, cache, options) = start(site(&[("lora.safetensors", b"x"), ("README.md", b"")]));
    let snapshot = cache
        .path()
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    let one = |id: &str| resolve_weights(id, &options, &NoProgress);
    assert_eq!(
        one("owner/name").unwrap(),
        snapshot.join("lora.safetensors")
    );

    let (site, cache, options) = start(site(&[("a.safetensors", b"x"), ("b/c.safetensors", b"y")]));
    let snapshot = cache
        .path()
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    let one = |id: &str| resolve_weights(id, &options, &NoProgress);
    assert_eq!(
        one("owner/name/b/c.safetensors").unwrap(),
        snapshot.join("b/c.safetensors")
    );
    assert_eq!(
        site.lock().unwrap().requests.len(),
        2,
        "no other file is fetched"
    );
    let message = one("owner/name/absent.safetensors")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("absent.safetensors") && message.contains("a.safetensors"),
        "{message}"
    );
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("x.safetensors"), b"");
    put(&folder.path().join("y.safetensors"), b"");
    let message = one(folder.path().to_str().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("x.safetensors") && message.contains("y.safetensors"),
        "{message}"
    );
}

#[derive(Default)]
struct Notes {
    told: Mutex<Vec<String>>,
    stop_when_told: bool,
}

impl Notes {
    fn told(&self) -> String {
        self.told.lock().unwrap().join("\n")
    }
}

impl HubProgress for Notes {
    fn note(&self, text: &str) {
        self.told.lock().unwrap().push(text.to_owned());
    }
    fn stopped(&self) -> bool {
        self.stop_when_told && !self.told().is_empty()
    }
}

#[test]
fn a_file_comes_with_the_settings_beside_it() {
    let names = ["sub/model.bin", "sub/adapter_config.json", "config.json"];
    let (_site, _cache, options) = start(site(&names.map(|name| (name, &b"x"[..]))));
    let found = resolve_weights("owner/name/sub/model.bin", &options, &NoProgress).unwrap();
    assert!(found.with_file_name("adapter_config.json").exists());
    assert!(!found.with_file_name("../config.json").exists());
}

#[cfg(unix)]
mod links;
