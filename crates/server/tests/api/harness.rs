//! A server in this process, and requests to it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brisk_server::{App, Settings, router};
use brisk_store::hub::NoProgress;
use serde_json::Value;
use tower::ServiceExt;

/// A server on the models in the box.
pub struct Server {
    pub app: Arc<App>,
    router: Router,
}

/// What came back.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Server {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let app = App::start(settings, &NoProgress).unwrap();
        let router = router(&app).unwrap();
        Self { app, router }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.unwrap().to_vec();
        Reply {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(get(path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(post(path, &body)).await
    }

    /// Posts and expects success.
    #[track_caller]
    pub fn ok(&self, path: &'static str, body: Value) -> impl Future<Output = Value> + '_ {
        let place = std::panic::Location::caller();
        async move {
            let reply = self.post(path, body).await;
            assert_eq!(reply.status, 200, "{place}: {}", reply.text());
            reply.json()
        }
    }

    /// Waits until a job has ended; its last snapshot.
    pub async fn ended(&self, id: &str) -> Value {
        for _ in 0..2400 {
            let snapshot = self.get(&format!("/brisk/v1/jobs/{id}")).await.json();
            let status = snapshot["status"].as_str().unwrap().to_owned();
            if ["done", "failed", "cancelled"].contains(&status.as_str()) {
                return snapshot;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the job {id} does not end");
    }
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The events of a stream: name and data.
    pub fn events(&self) -> Vec<(String, String)> {
        let text = self.text();
        assert!(text.ends_with("\n\n"), "{text}");
        let events = text.split("\n\n").filter(|event| !event.is_empty());
        events
            .map(|event| {
                let (mut name, mut data) = (String::new(), String::new());
                for line in event.lines().filter(|line| *line != ":") {
                    match line.split_once(": ") {
                        Some(("event", value)) => name = value.to_owned(),
                        Some(("data", value)) => data = value.to_owned(),
                        _ => panic!("{line:?} is neither an event nor data"),
                    }
                }
                (name, data)
            })
            .collect()
    }
}

pub fn get(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "127.0.0.1:8420");
    request.body(Body::empty()).unwrap()
}

pub fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header("host", "127.0.0.1:8420")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// The picture of an entry of `data`.
#[track_caller]
pub fn picture(entry: &Value) -> Vec<u8> {
    let text = entry["b64_json"].as_str().expect("a picture");
    STANDARD.decode(text).unwrap()
}

/// A picture as a data URL.
pub fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// A question that the small language model answers.
pub const QUESTION: &str = "Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. Wednesday: doubles \
    the number. Thursday: loses 8. Friday: buys 3 bags of 6. Saturday: sells 9. How many beads does Mia have now?";
