//! Hosts, origins, keys, rates.

use axum::body::Body;
use axum::http::Request;
use brisk_server::Settings;
use serde_json::json;

use crate::harness::{Reply, Server, get};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210";

fn with_keys(extra: Settings) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, format!("alice {KEY}\nbob {OTHER}\n")).unwrap();
    let server = Server::with(Settings {
        api_key_file: Some(file),
        ..extra
    });
    (server, folder)
}

async fn asked(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if method == "POST" { "{}" } else { "" };
    server.send(request.body(Body::from(body)).unwrap()).await
}

/// Host × Origin × Sec-Fetch-Site.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let server = Server::with(Settings {
        allowed_hosts: vec!["images.example.org".to_owned()],
        allowed_origins: vec!["https://app.example.org".to_owned()],
        ..Settings::default()
    });
    let hosts = [
        ("127.0.0.1:8420", true),
        ("localhost:8420", true),
        ("images.example.org", true),
        ("rebound.example.net:8420", false),
        ("192.168.0.7:8420", false),
    ];
    let sites = [
        None,
        Some("same-origin"),
        Some("none"),
        Some("same-site"),
        Some("cross-site"),
    ];
    for (host, known) in hosts {
        let own = format!("http://{host}");
        let origins = [
            None,
            Some(&*own),
            Some("https://evil.example"),
            Some("null"),
            Some("https://app.example.org"),
        ];
        for origin in origins {
            for site in sites {
                let mut headers = vec![("host", host), ("content-type", "application/json")];
                headers.extend(origin.map(|origin| ("origin", origin)));
                headers.extend(site.map(|site| ("sec-fetch-site", site)));
                let reply = asked(&server, "POST", "/v1/images/generations", &headers).await;
                let place = format!("{host} {origin:?} {site:?}: {}", reply.text());
                let trusted = origin == Some("https://app.example.org");
                let fits = match site {
                    _ if trusted => true,
                    Some("same-origin" | "none") => true,
                    Some(_) => false,
                    None => origin.is_none() || origin == Some(&*own),
                };
                let expected = match (fits, known) {
                    (false, _) => (403, "origin_refused"),
                    (true, false) => (403, "host_refused"),
                    // It came through, to be told that it has no prompt.
                    (true, true) => (400, "invalid_value"),
                };
                let code = reply.json()["error"]["code"].as_str().unwrap().to_owned();
                assert_eq!((reply.status.as_u16(), &*code), expected, "{place}");
                let shared = reply.headers.get("access-control-allow-origin");
                assert_eq!(shared.is_some(), trusted, "{place}");
            }
        }
        let reply = asked(&server, "GET", "/v1/models", &[("host", host)]).await;
        assert_eq!(
            reply.status.as_u16(),
            if known { 200 } else { 403 },
            "{host}"
        );
    }
}

#[tokio::test]
async fn every_response_keeps_browsers_in() {
    let server = Server::new();
    for path in ["/v1/models", "/nowhere", "/health", "/openapi.json"] {
        let headers = server.get(path).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert_eq!(headers["referrer-policy"], "same-origin");
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    let preflight = [
        ("host", "localhost"),
        ("origin", "https://evil.example"),
        ("access-control-request-method", "POST"),
    ];
    let reply = asked(&server, "OPTIONS", "/v1/images/generations", &preflight).await;
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn keys_are_asked_for() {
    let (server, _folder) = with_keys(Settings::default());
    let host = ("host", "localhost");
    for (path, open) in [
        ("/health", true),
        ("/ready", true),
        ("/metrics", true),
        ("/v1/models", false),
        ("/brisk/v1/capabilities", false),
        ("/brisk/v1/jobs", false),
        ("/openapi.json", false),
    ] {
        let reply = asked(&server, "GET", path, &[host]).await;
        assert_eq!(
            reply.status.as_u16(),
            if open { 200 } else { 401 },
            "{path}"
        );
        if !open {
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
            assert_eq!(reply.json()["error"]["type"], "authentication_error");
        }
        let key = format!("Bearer {KEY}");
        let reply = asked(&server, "GET", path, &[host, ("authorization", &key)]).await;
        assert_eq!(reply.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_do_not_leave_by_a_proxy() {
    let allowed_hosts = vec!["images.example.org".to_owned()];
    let (server, _folder) = with_keys(Settings {
        allowed_hosts,
        ..Settings::default()
    });
    for headers in [
        &[("host", "images.example.org")][..],
        &[("host", "localhost"), ("x-forwarded-for", "192.0.2.1")],
        &[("host", "localhost"), ("via", "1.1 proxy")],
    ] {
        let reply = asked(&server, "GET", "/metrics", headers).await;
        assert_eq!(reply.status, 401, "{headers:?}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let (server, _folder) = with_keys(Settings::default());
    let wrong = [
        ("host", "localhost"),
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ];
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(
            asked(&server, "GET", "/v1/models", &wrong)
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 2]);
    // Who has the key is let in all the same.
    let key = format!("Bearer {KEY}");
    let reply = asked(
        &server,
        "GET",
        "/v1/models",
        &[("host", "localhost"), ("authorization", &key)],
    )
    .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn jobs_of_other_keys_are_not_there() {
    let (server, _folder) = with_keys(Settings::default());
    let send = async |key: &str, method: &str, path: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        server.send(request).await
    };
    let job = json!({"kind": "image", "request": {"prompt": "x", "steps": 1}}).to_string();
    let reply = send(KEY, "POST", "/brisk/v1/jobs", job).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let path = format!("/brisk/v1/jobs/{}", reply.json()["id"].as_str().unwrap());
    assert_eq!(send(KEY, "GET", &path, String::new()).await.status, 200);
    for (method, end) in [("GET", ""), ("GET", "/result"), ("POST", "/cancel")] {
        let reply = send(OTHER, method, &format!("{path}{end}"), "{}".to_owned()).await;
        assert_eq!(reply.status, 404, "{end}");
    }
    let list = send(OTHER, "GET", "/brisk/v1/jobs", String::new())
        .await
        .json();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn callers_ask_so_often() {
    let server = Server::with(Settings {
        requests_per_minute: 3,
        ..Settings::default()
    });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            server
                .post("/v1/images/generations", json!({}))
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses, [400, 400, 400, 429]);
    assert_eq!(server.send(get("/health")).await.status, 200);
}

#[test]
fn others_are_let_in_only_with_keys() {
    let settings = Settings {
        listen: "0.0.0.0:8420".parse().unwrap(),
        ..Settings::default()
    };
    let error = brisk_server::App::start(settings, &brisk_store::hub::NoProgress).unwrap_err();
    assert!(error.to_string().contains("--api-key-file"), "{error}");
    for (file, word) in [("", "holds no key"), ("short\n", "line 1 is no key")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, file).unwrap();
        let settings = Settings {
            api_key_file: Some(path),
            ..Settings::default()
        };
        let error = brisk_server::App::start(settings, &brisk_store::hub::NoProgress).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
