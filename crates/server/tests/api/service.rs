//! Models, status, metrics, the description of the interface, and who goes away.

use std::time::{Duration, Instant};

use axum::http::Request;
use brisk_server::{OPERATIONS, Settings};
use serde_json::{Value, json};

use crate::harness::Server;

#[tokio::test]
async fn models_are_listed_under_all_their_names() {
    let server = Server::with(Settings {
        models: vec!["small=sana-emoji".to_owned(), "llada-arithmetic".to_owned()],
        aliases: vec!["gpt-image-1=small".to_owned()],
        ..Settings::default()
    });
    let list = server.get("/v1/models").await.json();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["small", "llada-arithmetic"]);
    let model = server.get("/v1/models/gpt-image-1").await.json();
    assert_eq!(model["id"], "gpt-image-1");
    assert_eq!(model["brisk"]["status"], "idle");
    let body = json!({"prompt": "cat", "steps": 1, "seed": 1, "model": "gpt-image-1"});
    let reply = server.ok("/v1/images/generations", body).await;
    assert_eq!(reply["brisk"]["model"], "small");
    let model = server.get("/v1/models/small").await.json();
    assert_eq!(model["brisk"]["status"], "loaded");
}

#[tokio::test]
async fn models_make_room_for_each_other() {
    let list = Server::new().get("/v1/models").await.json();
    let bytes = |id: &str| -> u64 {
        let models = list["data"].as_array().unwrap();
        let model = models.iter().find(|model| model["id"] == id).unwrap();
        model["brisk"]["bytes"].as_u64().unwrap()
    };
    // Either fits, both do not.
    let server = Server::with(Settings {
        memory: Some(bytes("sana-emoji") + bytes("llada-arithmetic") + (150 << 20)),
        models: vec![
            "sana-emoji".to_owned(),
            "a=llada-arithmetic".to_owned(),
            "b=llada-arithmetic".to_owned(),
        ],
        ..Settings::default()
    });
    let chat = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Mia has 3 beads."}], "max_tokens": 32});
    server.ok("/v1/chat/completions", chat("a")).await;
    server.ok("/v1/chat/completions", chat("b")).await;
    let status = server.get("/brisk/v1/status").await.json();
    assert_eq!(status["loaded"], json!(["a", "b"]));
    let small = Server::with(Settings {
        memory: Some(bytes("llada-arithmetic") * 3 / 2),
        models: vec![
            "a=llada-arithmetic".to_owned(),
            "b=llada-arithmetic".to_owned(),
        ],
        ..Settings::default()
    });
    small.ok("/v1/chat/completions", chat("a")).await;
    small.ok("/v1/chat/completions", chat("b")).await;
    let status = small.get("/brisk/v1/status").await.json();
    assert_eq!(status["loaded"], json!(["b"]));
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let server = Server::new();
    server
        .ok(
            "/v1/images/generations",
            json!({"prompt": "cat", "steps": 2, "n": 2}),
        )
        .await;
    let chat =
        json!({"messages": [{"role": "user", "content": "Mia has 3 beads."}], "max_tokens": 32});
    server.ok("/v1/chat/completions", chat).await;
    server
        .post("/v1/images/generations", json!({"stpes": 1}))
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let text = server.get("/metrics").await.text();
    for line in [
        "brisk_images_total 2",
        "brisk_jobs_total{kind=\"image\",model=\"sana-emoji\",outcome=\"done\"} 1",
        "brisk_refused_total{reason=\"unknown_field\"} 1",
        "brisk_http_requests_total{route=\"/v1/images/generations\",method=\"POST\",status=\"400\"} 1",
        "brisk_stage_seconds_count{model=\"sana-emoji\",stage=\"decode\"} 1",
        "brisk_jobs_queued 0",
        "brisk_streams_open 0",
        "brisk_model_loads_total{model=\"llada-arithmetic\"} 1",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let status = server.get("/brisk/v1/status").await.json();
    assert_eq!(status["queued"], 0);
    assert!(
        status["seconds_by_stage"]["sana-emoji"]["decode"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

/// The description and the routes are the same.
#[tokio::test]
async fn what_is_described_is_served() {
    let server = Server::new();
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for operation in OPERATIONS {
        assert!(document["paths"][operation.path][operation.method].is_object());
        let path: String = operation.path.replace(['{', '}'], "");
        let request = Request::builder()
            .method(&*operation.method.to_uppercase())
            .uri(&path)
            .header("host", "localhost")
            .body(axum::body::Body::empty())
            .unwrap();
        if path == "/brisk/v1/events" {
            continue;
        }
        let reply = server.send(request).await;
        assert_ne!(reply.status, 405, "{path}");
        if reply.status == 404 {
            let message = reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                !message.contains("there is nothing at"),
                "{path}: {message}"
            );
        }
    }
    let paths = document["paths"].as_object().unwrap();
    let described: usize = paths
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum();
    assert_eq!(described, OPERATIONS.len());
}

#[tokio::test]
async fn the_page_is_served_with_all_that_it_loads() {
    let server = Server::new();
    let page = server.get("/").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let text = page.text();
    for path in text.split('"').filter(|part| part.starts_with("/ui/")) {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let script = server.get("/ui/vendor/lit-html/lit-html.js").await;
    assert_eq!(
        script.headers["content-type"],
        "text/javascript; charset=utf-8"
    );
    for path in [
        "/ui/nothing.js",
        "/ui/../Cargo.toml",
        "/ui/%2e%2e/Cargo.toml",
        "/ui//etc/passwd",
    ] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn who_goes_away_stops_the_job() {
    let server = Server::new();
    for stream in [false, true] {
        let body = json!({"prompt": "cat", "steps": 100, "n": 8, "stream": stream});
        let asked = server.post("/v1/images/generations", body);
        let gone = tokio::time::timeout(Duration::from_millis(1500), asked).await;
        assert!(gone.is_err(), "it was done before anybody could go");
        let began = Instant::now();
        loop {
            let status = server.get("/brisk/v1/status").await.json();
            if status["running"] == json!([]) && status["queued"] == 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = server.get("/metrics").await.text();
    let cancelled = "outcome=\"cancelled\"} 2";
    assert!(text.contains(cancelled), "{text}");
}

#[tokio::test]
async fn many_callers_get_what_they_asked_for() {
    let server = Server::new();
    let asked = (0..6u64).map(|seed| {
        let body = json!({"prompt": "cat", "steps": 1, "seed": seed});
        server.post("/v1/images/generations", body)
    });
    let replies = futures_util::future::join_all(asked).await;
    let mut pictures = std::collections::BTreeSet::new();
    for (seed, reply) in replies.iter().enumerate() {
        let reply: Value = reply.json();
        assert_eq!(reply["data"][0]["seed"], seed);
        pictures.insert(reply["data"][0]["b64_json"].to_string());
    }
    assert_eq!(pictures.len(), 6);
}
