//! What targets share: a server that understands requests and carries none out, and folders for files.

use std::path::PathBuf;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use brisk_server::{App, Settings, router};
use brisk_store::hub::NoProgress;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// A folder of this process and its target, in memory where the system has such folders.
pub fn folder(target: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = parent.join(format!("brisk-fuzz-{target}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder of its own");
    folder
}

/// The server.
pub struct Requests {
    router: Router,
    runtime: Runtime,
}

impl Requests {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Requests> = OnceLock::new();
        SHARED.get_or_init(|| {
            // Nothing may wait, so that every request that is understood is refused for that.
            let settings = Settings {
                max_jobs: 0,
                requests_per_minute: u32::MAX,
                ..Settings::default()
            };
            let app = App::start(settings, &NoProgress).expect("the models in the box");
            Self {
                router: router(&app).expect("no origins"),
                runtime: tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .expect("a runtime"),
            }
        })
    }

    /// Posts a body: it is too much for the queue, or at fault itself, and never the server's fault.
    pub fn expect_an_answer(&self, path: &str, kind: &str, bytes: &[u8]) {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", kind)
            .body(Body::from(bytes.to_vec()))
            .expect("a request");
        let answer = self.runtime.block_on(self.router.clone().oneshot(request));
        let status = answer.expect("an answer").status().as_u16();
        assert!(matches!(status, 400 | 404 | 413 | 429), "{status}");
    }
}
