//! Jobs that compute side by side.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{QUESTION, Server, picture};

const CHAT: &str = "/v1/chat/completions";
const PICTURES: &str = "/v1/images/generations";

fn question(beads: usize) -> Value {
    let content = QUESTION.replace("34", &beads.to_string());
    json!({"messages": [{"role": "user", "content": content}], "max_tokens": 128, "seed": 0})
}

/// The value of a metric.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_share_passes_and_say_what_they_say_alone() {
    let server = Arc::new(Server::new());
    let mut alone = Vec::new();
    for beads in 30..38 {
        alone.push(server.ok(CHAT, question(beads)).await["choices"].clone());
    }
    let before = server.get("/metrics").await.text();
    let together = (30..38).map(|beads| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.ok(CHAT, question(beads)).await["choices"].clone() })
    });
    for (asked, alone) in together.collect::<Vec<_>>().into_iter().zip(alone) {
        assert_eq!(asked.await.unwrap(), alone);
    }
    let after = server.get("/metrics").await.text();
    let passes = |text: &str| {
        (
            metric(text, "brisk_batch_rows_sum"),
            metric(text, "brisk_batch_rows_count"),
        )
    };
    let ((rows, count), (rows_before, count_before)) = (passes(&after), passes(&before));
    let shared = (rows - rows_before) / (count - count_before);
    assert!(shared > 2.0, "{shared} sequences a pass");
    assert_eq!(rows_before, count_before, "alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_pictures_go_on_beside_each_other() {
    let server = Arc::new(Server::new());
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 3});
    let alone = server.ok(PICTURES, body.clone()).await;
    let answer = server.ok(CHAT, question(34)).await;
    let long = json!({"prompt": "red heart", "seed": 7, "steps": 100, "n": 8});
    let long = json!({"kind": "image", "request": long});
    let id = server.post("/brisk/v1/jobs", long).await.json()["id"].clone();
    let again = server.ok(CHAT, question(34)).await;
    assert_eq!(again["choices"], answer["choices"]);
    let path = format!("/brisk/v1/jobs/{}", id.as_str().unwrap());
    let status = server.get(&path).await.json()["status"].clone();
    assert!(status == "running" || status == "loading", "{status}");
    let running = server.get("/brisk/v1/status").await.json();
    assert_eq!(running["running"][0]["kind"], "image");
    assert!(running["memory"]["taken_bytes"].as_u64().unwrap() > 0);
    server.post(&format!("{path}/cancel"), json!({})).await;
    let after = server.ok(PICTURES, body).await;
    assert_eq!(picture(&after["data"][0]), picture(&alone["data"][0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_shared_pass_takes_nobody_along() {
    let server = Arc::new(Server::new());
    let alone = server.ok(CHAT, question(34)).await["choices"].clone();
    let submit = async |beads: usize| {
        let body = json!({"kind": "text", "request": question(beads)});
        let reply = server.post("/brisk/v1/jobs", body).await.json();
        reply["id"].as_str().unwrap().to_owned()
    };
    let mut ids = Vec::new();
    for beads in [31, 32, 34, 33] {
        ids.push(submit(beads).await);
    }
    for gone in [0, 1, 3] {
        let path = format!("/brisk/v1/jobs/{}/cancel", ids[gone]);
        assert_eq!(server.post(&path, json!({})).await.status, 200);
    }
    assert_eq!(server.ended(&ids[2]).await["status"], "done");
    let path = format!("/brisk/v1/jobs/{}/result", ids[2]);
    assert_eq!(server.get(&path).await.json()["choices"], alone);
}

#[tokio::test]
async fn a_budget_that_is_too_small_is_told_before_anything_starts() {
    let server = Server::with(brisk_server::Settings {
        memory: Some(1 << 20),
        ..Default::default()
    });
    for (path, body) in [
        (PICTURES, json!({"prompt": "red heart"})),
        (CHAT, question(34)),
    ] {
        let reply = server.post(path, body).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "exceeds_memory");
        assert_eq!(reply.headers["x-should-retry"], "false");
    }
}
