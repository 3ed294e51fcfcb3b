//! The fuzzer's seeds: every body is understood or refused, and never the server's fault.

use axum::body::Body;
use axum::http::Request;
use brisk_server::Settings;

use crate::harness::Server;

#[tokio::test]
async fn bodies_that_were_ever_mishandled_are_answered() {
    // Nothing may wait, so that what is understood is refused for that.
    let server = Server::with(Settings {
        max_jobs: 0,
        requests_per_minute: u32::MAX,
        ..Settings::default()
    });
    let json = "application/json";
    let kinds = [
        ("image_request", "/v1/images/generations", json),
        (
            "edit_request",
            "/v1/images/edits",
            "multipart/form-data; boundary=b",
        ),
        ("chat_request", "/v1/chat/completions", json),
        ("completion_request", "/v1/completions", json),
        ("segment_request", "/brisk/v1/segment", json),
        ("job_request", "/brisk/v1/jobs", json),
    ];
    let seeds = brisk_testkit::fixtures_dir().join("../fuzz/seeds");
    let mut count = 0;
    for (folder, path, kind) in kinds {
        for entry in std::fs::read_dir(seeds.join(folder)).unwrap().flatten() {
            let request = Request::post(path)
                .header("host", "localhost")
                .header("content-type", kind)
                .body(Body::from(std::fs::read(entry.path()).unwrap()))
                .unwrap();
            let reply = server.send(request).await;
            let name = entry.file_name().into_string().unwrap();
            let expected: &[u16] = match name.starts_with("good_") {
                true => &[429],
                false => &[400, 404, 413, 429],
            };
            let status = reply.status.as_u16();
            assert!(
                expected.contains(&status),
                "{folder}/{name}: {}",
                reply.text()
            );
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
