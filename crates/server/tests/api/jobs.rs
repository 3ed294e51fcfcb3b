//! `/brisk/v1/jobs`.

use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, picture, post};

const JOBS: &str = "/brisk/v1/jobs";

fn image(steps: usize) -> Value {
    json!({"kind": "image", "request": {"prompt": "red heart", "seed": 7, "steps": steps}})
}

async fn submitted(server: &Server, body: Value) -> String {
    let reply = server.post(JOBS, body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_jobs_result_is_the_reply() {
    let server = Server::new();
    let id = submitted(&server, image(3)).await;
    let snapshot = server.ended(&id).await;
    assert_eq!(snapshot["status"], "done", "{snapshot}");
    assert_eq!(snapshot["seed"], 7);
    let result = server
        .get(snapshot["links"]["result"].as_str().unwrap())
        .await
        .json();
    let direct = server
        .ok(
            "/v1/images/generations",
            json!({"prompt": "red heart", "seed": 7, "steps": 3}),
        )
        .await;
    assert_eq!(picture(&result["data"][0]), picture(&direct["data"][0]));
    let file = server.get(&format!("{JOBS}/{id}/result/0")).await;
    assert_eq!(file.headers["content-type"], "image/png");
    assert_eq!(file.bytes, picture(&result["data"][0]));
    for path in ["result/1", "result/x", "preview"] {
        let reply = server.get(&format!("{JOBS}/{id}/{path}")).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    let list = server.get(JOBS).await.json();
    assert_eq!(list["data"][0]["id"], *id);
}

#[tokio::test]
async fn texts_are_jobs_too() {
    let server = Server::new();
    let request = json!({"messages": [{"role": "user", "content": "Mia has 3 beads."}], "max_tokens": 32, "seed": 1});
    let id = submitted(&server, json!({"kind": "text", "request": request})).await;
    assert_eq!(server.ended(&id).await["status"], "done");
    let result = server.get(&format!("{JOBS}/{id}/result")).await.json();
    let direct = server.ok("/v1/chat/completions", request).await;
    assert_eq!(result["choices"], direct["choices"]);
}

#[tokio::test]
async fn a_cancelled_job_ends_soon() {
    let server = Server::new();
    let (running, waiting) = (
        submitted(&server, image(100)).await,
        submitted(&server, image(100)).await,
    );
    let cancel =
        async |id: &str| -> Reply { server.post(&format!("{JOBS}/{id}/cancel"), json!({})).await };
    let second = cancel(&waiting).await.json();
    assert_eq!(second["status"], "cancelled", "{second}");
    assert_eq!(cancel(&running).await.status, 200);
    let began = std::time::Instant::now();
    let snapshot = server.ended(&running).await;
    assert_eq!(snapshot["status"], "cancelled", "{snapshot}");
    assert!(began.elapsed().as_secs() < 20);
    // However often.
    assert_eq!(cancel(&running).await.json()["status"], "cancelled");
    let result = server.get(&format!("{JOBS}/{running}/result")).await;
    assert_eq!(result.json()["error"]["code"], "cancelled");
    let next = server
        .ok(
            "/v1/images/generations",
            json!({"prompt": "cat", "steps": 1}),
        )
        .await;
    assert_eq!(next["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_newer_job_of_a_channel_takes_the_place_of_older_ones() {
    let server = Server::new();
    let body = |steps| {
        let mut body = image(steps);
        body["channel"] = "sketch".into();
        body
    };
    let first = submitted(&server, body(100)).await;
    let second = submitted(&server, body(2)).await;
    assert_eq!(server.ended(&first).await["status"], "cancelled");
    assert_eq!(server.ended(&second).await["status"], "done");
}

#[tokio::test]
async fn a_repeated_submission_is_the_same_job() {
    let server = Server::new();
    let send = async |body: &Value| {
        let mut request: Request<_> = post(JOBS, body);
        request
            .headers_mut()
            .insert("idempotency-key", "once".parse().unwrap());
        server.send(request).await.json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = send(&image(2)).await;
    assert_eq!(send(&image(2)).await, first);
    assert_ne!(submitted(&server, image(2)).await, first);
}

#[tokio::test]
async fn events_are_snapshots() {
    let server = Server::new();
    let id = submitted(&server, image(4)).await;
    let app = std::sync::Arc::clone(&server.app);
    let reading = async { server.get("/brisk/v1/events").await };
    let ending = async {
        server.ended(&id).await;
        // A server that ends ends its streams.
        app.drain().await;
        app.pulse.send_modify(|number| *number += 1);
    };
    let (reply, ()) = tokio::join!(reading, ending);
    let snapshots: Vec<Value> = reply
        .events()
        .iter()
        .map(|(name, data)| {
            assert_eq!(name, "job");
            serde_json::from_str(data).unwrap()
        })
        .collect();
    let numbers: Vec<u64> = snapshots
        .iter()
        .map(|s| s["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(snapshots.last().unwrap()["status"], "done");
}

#[tokio::test]
async fn what_is_no_job_is_refused() {
    let server = Server::new();
    for (body, param) in [
        (json!({"request": {}}), "kind"),
        (json!({"kind": "sound", "request": {}}), "kind"),
        (json!({"kind": "image"}), "request"),
        (
            json!({"kind": "image", "request": {"prompt": "x"}, "chanel": "a"}),
            "chanel",
        ),
        (
            json!({"kind": "image", "request": {"prompt": "x"}, "channel": ""}),
            "channel",
        ),
        (
            json!({"kind": "image", "request": {"prompt": "x", "stpes": 1}}),
            "stpes",
        ),
        (
            json!({"kind": "image", "request": {"prompt": "x", "stream": true}}),
            "stream",
        ),
    ] {
        let reply = server.post(JOBS, body.clone()).await;
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
}
