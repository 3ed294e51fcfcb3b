//! Every error, as clients see it.

use axum::body::Body;
use axum::http::Request;
use brisk_server::Settings;
use serde_json::{Value, json};

use crate::harness::{Server, post};

const IMAGES: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Path, body, status, code, param, words of the message.
type Case = (
    &'static str,
    Value,
    u16,
    &'static str,
    Option<&'static str>,
    &'static str,
);

fn cases() -> Vec<Case> {
    let hello = json!([{"role": "user", "content": "hello"}]);
    let long = "a ".repeat(2000);
    vec![
        (
            IMAGES,
            json!({}),
            400,
            "invalid_value",
            Some("prompt"),
            "prompt: is missing",
        ),
        (
            IMAGES,
            json!({"prompt": ""}),
            400,
            "invalid_value",
            Some("prompt"),
            "say what to draw",
        ),
        (
            IMAGES,
            json!({"prompt": 4}),
            400,
            "invalid_value",
            Some("prompt"),
            "prompt: 4 is not a text",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "stpes": 4}),
            400,
            "unknown_field",
            Some("stpes"),
            "`stpes` is no field of this request; did you mean `steps`?",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "latents": "/etc/passwd"}),
            400,
            "unknown_field",
            Some("latents"),
            "`latents` is no field",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "model": "gpt-image-1"}),
            404,
            "model_not_found",
            Some("model"),
            "there is no gpt-image-1; there are llada-arithmetic, sam-text, sana-emoji",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "model": "../../etc/passwd"}),
            404,
            "model_not_found",
            Some("model"),
            "there is no ../../etc/passwd",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "model": "llada-arithmetic"}),
            400,
            "invalid_value",
            Some("model"),
            "llada-arithmetic gives text, not pictures",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "steps": 0}),
            400,
            "invalid_value",
            Some("steps"),
            "steps: 0 is not a whole number, 1 to 1000",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "steps": 101}),
            400,
            "invalid_value",
            Some("steps"),
            "more than 100",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "seed": -1}),
            400,
            "invalid_value",
            Some("seed"),
            "2^53-1",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "seed": 9007199254740991u64, "n": 2}),
            400,
            "invalid_value",
            Some("seed"),
            "no room for 2 results",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "n": 9}),
            400,
            "invalid_value",
            Some("n"),
            "9 is more than 8",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "size": "big"}),
            400,
            "invalid_value",
            Some("size"),
            "is not WIDTHxHEIGHT in pixels, or auto",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "size": "100x100"}),
            400,
            "invalid_value",
            Some("height"),
            "not a multiple of",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "size": "4096x4096"}),
            400,
            "invalid_value",
            Some("size"),
            "at most 4194304 are drawn",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "size": "128x128", "width": 64}),
            400,
            "invalid_value",
            Some("size"),
            "cannot be combined with `width`",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "quality": "hd"}),
            400,
            "unsupported_option",
            Some("quality"),
            "leave it out, or give \"auto\"",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "scm_timesteps": [1.5, 0.0]}),
            400,
            "unsupported_option",
            Some("scm_timesteps"),
            "only SANA-Sprint has angles; use `steps` and `shift`",
        ),
        (
            IMAGES,
            json!({"prompt": "x", "control_image": "http://example.org/x.png"}),
            400,
            "invalid_value",
            Some("control_image"),
            "nothing is fetched",
        ),
        (
            EDITS,
            json!({"prompt": "x"}),
            400,
            "invalid_value",
            Some("image"),
            "0 pictures were given; expected one",
        ),
        (
            EDITS,
            json!({"prompt": "x", "image": "file:///etc/passwd"}),
            400,
            "invalid_value",
            Some("image"),
            "nothing is fetched",
        ),
        (
            EDITS,
            json!({"prompt": "x", "image": "data:image/png;base64,aGVsbG8="}),
            400,
            "invalid_value",
            Some("image"),
            "expected PNG, JPEG or WebP",
        ),
        (
            EDITS,
            json!({"prompt": "x", "image": "data:;base64,", "mask": "x"}),
            400,
            "unsupported_option",
            Some("mask"),
            "leave it out",
        ),
        (
            CHAT,
            json!({"messages": []}),
            400,
            "invalid_value",
            Some("messages"),
            "0 messages",
        ),
        (
            CHAT,
            json!({"messages": hello, "temperature": 3}),
            400,
            "invalid_value",
            Some("temperature"),
            "3 is outside 0..=2",
        ),
        (
            CHAT,
            json!({"messages": hello, "n": 2}),
            400,
            "invalid_value",
            Some("n"),
            "give a `temperature` above 0",
        ),
        (
            CHAT,
            json!({"messages": hello, "max_tokens": 4097}),
            400,
            "invalid_value",
            Some("max_tokens"),
            "4097 is more than 4096",
        ),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": long}], "max_tokens": 64}),
            400,
            "invalid_value",
            Some("max_tokens"),
            "and the model knows 512",
        ),
        (
            CHAT,
            json!({"messages": hello, "top_p": 0.5}),
            400,
            "unsupported_option",
            Some("top_p"),
            "LLaDA's sampler draws from all tokens",
        ),
        (
            CHAT,
            json!({"messages": hello, "tools": [1]}),
            400,
            "unsupported_option",
            Some("tools"),
            "leave it out, or give []",
        ),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "a<|eot_id|>b"}]}),
            400,
            "invalid_value",
            Some("messages"),
            "spells a token that marks turns",
        ),
        (
            CHAT,
            json!({"messages": hello, "stream_options": {"include_usage": true}}),
            400,
            "invalid_value",
            Some("stream_options"),
            "has no effect without `stream`",
        ),
        (
            CHAT,
            json!({"messages": hello, "stop": [""]}),
            400,
            "invalid_value",
            Some("stop"),
            "1 to 4",
        ),
        (
            COMPLETIONS,
            json!({"prompt": vec!["x"; 17]}),
            400,
            "invalid_value",
            Some("prompt"),
            "17 texts; expected 1 to 16",
        ),
        (
            COMPLETIONS,
            json!({"prompt": ["x", "y"], "suffix": "z"}),
            400,
            "invalid_value",
            Some("suffix"),
            "behind one prompt",
        ),
        (
            COMPLETIONS,
            json!({"prompt": "x", "echo": true}),
            400,
            "unsupported_option",
            Some("echo"),
            "or give false",
        ),
    ]
}

#[tokio::test]
async fn every_error_names_its_field() {
    let server = Server::new();
    for (path, body, status, code, param, words) in cases() {
        let reply = server.post(path, body.clone()).await;
        let shown = format!("{path} {body}: {}", reply.text());
        assert_eq!(reply.status, status, "{shown}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code, "{shown}");
        assert_eq!(error["param"].as_str(), param, "{shown}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{shown}");
        assert!(!message.contains("--"), "a flag in {shown}");
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert_eq!(reply.headers["x-should-retry"], "false", "{shown}");
        assert!(reply.headers.contains_key("x-request-id"), "{shown}");
    }
}

#[tokio::test]
async fn top_p_of_one_is_no_nucleus() {
    let server = Server::new();
    let body = json!({"messages": [{"role": "user", "content": "Mia has 3 beads."}], "top_p": 1, "max_tokens": 32});
    server.ok(CHAT, body).await;
}

#[tokio::test]
async fn bodies_are_of_their_type_and_size() {
    let server = Server::new();
    let request = |kind: Option<&str>, body: Vec<u8>| {
        let mut request = Request::post(COMPLETIONS).header("host", "localhost");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.body(Body::from(body)).unwrap()
    };
    let json_ = Some("application/json");
    for (kind, body, status, code) in [
        (None, b"{}".to_vec(), 415, "unsupported_media_type"),
        (
            Some("text/plain"),
            b"{}".to_vec(),
            415,
            "unsupported_media_type",
        ),
        (
            Some("multipart/form-data; boundary=b"),
            b"--b--".to_vec(),
            415,
            "unsupported_media_type",
        ),
        (json_, b"".to_vec(), 400, "invalid_value"),
        (json_, b"[]".to_vec(), 400, "invalid_value"),
        (json_, b"{\"a\":".repeat(1000), 400, "invalid_value"),
        (
            json_,
            [b"{\"a\":\"".to_vec(), vec![b'x'; 1 << 20], b"\"}".to_vec()].concat(),
            413,
            "too_large",
        ),
        (
            Some("Application/JSON; charset=utf-8"),
            b"{}".to_vec(),
            400,
            "invalid_value",
        ),
    ] {
        let reply = server.send(request(kind, body)).await;
        assert_eq!(reply.status, status, "{kind:?}: {}", reply.text());
        assert_eq!(reply.json()["error"]["code"], code);
    }
    let form = Request::post(EDITS)
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Body::from(
            "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nx",
        ))
        .unwrap();
    assert_eq!(server.send(form).await.status, 400);
}

#[tokio::test]
async fn nothing_is_served_elsewhere() {
    let server = Server::new();
    for path in ["/v1/files", "/v1/batches", "/v1", "/brisk/v1/videos", "/ui"] {
        let reply = server.get(path).await;
        assert_eq!(
            (
                reply.status.as_u16(),
                &*reply.json()["error"]["code"].to_string()
            ),
            (404, "\"not_found\"")
        );
    }
    let reply = server.get(IMAGES).await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.json()["error"]["code"], "method_not_allowed");
    let reply = server.get("/v1/models/nobody").await;
    assert_eq!(
        (
            reply.status.as_u16(),
            &*reply.json()["error"]["code"].to_string()
        ),
        (404, "\"model_not_found\"")
    );
}

#[tokio::test]
async fn what_can_never_fit_is_refused() {
    let server = Server::with(Settings {
        memory: Some(1 << 20),
        ..Settings::default()
    });
    let reply = server.post(IMAGES, json!({"prompt": "x"})).await;
    assert_eq!(
        (
            reply.status.as_u16(),
            &*reply.json()["error"]["code"].to_string()
        ),
        (400, "\"exceeds_memory\"")
    );
}

#[tokio::test]
async fn a_full_queue_and_an_ending_server_refuse() {
    let server = Server::with(Settings {
        max_jobs: 1,
        ..Settings::default()
    });
    let job = json!({"kind": "image", "request": {"prompt": "x", "steps": 100}});
    let mut refused = None;
    for _ in 0..4 {
        let reply = server.post("/brisk/v1/jobs", job.clone()).await;
        if reply.status != 202 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "queue_full");
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait));
    assert!(!refused.headers.contains_key("x-should-retry"));
    for running in server.get("/brisk/v1/jobs").await.json()["data"]
        .as_array()
        .unwrap()
    {
        let path = format!("/brisk/v1/jobs/{}/cancel", running["id"].as_str().unwrap());
        server.send(post(&path, &json!({}))).await;
    }
    server.app.drain().await;
    let reply = server.post(IMAGES, json!({"prompt": "x"})).await;
    assert_eq!(
        (
            reply.status.as_u16(),
            &*reply.json()["error"]["code"].to_string()
        ),
        (503, "\"shutting_down\"")
    );
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.get("/health").await.status, 200);
}
