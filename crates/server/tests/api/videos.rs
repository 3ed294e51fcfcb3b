//! Clips over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use brisk::options::video_keys;
use brisk::{Control, OpenSettings, VideoRequest, keys, registry};
use brisk_media::{Clip, decode_clip};
use brisk_server::Settings;
use brisk_store::ModelFolder;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, data_url, get};

const PATH: &str = "/v1/videos";
/// Begins with a picture.
const REPLACE: &str = "hunyuan_video_replace";
/// Of a text alone.
const TEXT: &str = "hunyuan_video_text";

fn folder(name: &str) -> std::path::PathBuf {
    brisk_testkit::fixtures_dir().join("pipelines").join(name)
}

fn server() -> Server {
    let named = |name: &str| folder(name).display().to_string();
    Server::with(Settings {
        models: vec!["sana-emoji".to_owned(), named(REPLACE), named(TEXT)],
        ..Settings::default()
    })
}

fn first_frame() -> Vec<u8> {
    std::fs::read(folder(REPLACE).join("first.png")).unwrap()
}

fn with(mut body: Value, more: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    body
}

fn small() -> Value {
    json!({"model": TEXT, "prompt": "a heart jumps", "size": "32x32", "frames": 5, "steps": 2, "seed": 7})
}

impl Server {
    /// Begins a clip; its first snapshot.
    async fn begun(&self, body: Value) -> Value {
        let reply = self.post(PATH, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// Waits for the end of a clip.
    async fn clip(&self, id: &Value) -> Value {
        let path = format!("{PATH}/{}", id.as_str().unwrap());
        for _ in 0..2400 {
            let told = self.get(&path).await.json();
            let progress = told["progress"].as_u64().unwrap();
            assert!(progress <= 100, "{told}");
            if !["queued", "in_progress"].contains(&told["status"].as_str().unwrap()) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the clip does not end");
    }

    async fn content(&self, id: &Value, rest: &str) -> Reply {
        let path = format!("{PATH}/{}/content{rest}", id.as_str().unwrap());
        self.get(&path).await
    }

    async fn deleted(&self, id: &Value) -> Reply {
        let request = Request::delete(format!("{PATH}/{}", id.as_str().unwrap()))
            .header("host", "127.0.0.1:8420");
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

/// What the library makes of the same request.
fn made(request: VideoRequest, name: &str) -> Clip {
    brisk_pipelines::machine::flush_denormals();
    let folder = ModelFolder::Disk(folder(name));
    let mut model = registry::open_video(&folder, &OpenSettings::default()).unwrap();
    let plan = model.plan(&request).unwrap();
    model.generate(&plan, &Control::silent()).unwrap().clip
}

#[tokio::test]
async fn a_clip_begins_with_its_picture_and_is_the_librarys() {
    let server = server();
    let body = json!({
        "model": REPLACE, "prompt": "A Red heart jumps, twice!", "size": "48x32", "num_frames": 5, "steps": 2,
        "seed": 7, "fps": 8, "input_reference": data_url(&first_frame()),
    });
    let begun = server.begun(body).await;
    assert_eq!(
        (&begun["object"], &begun["size"]),
        (&"video".into(), &"48x32".into())
    );
    assert_eq!(
        (&begun["model"], &begun["seconds"]),
        (&REPLACE.into(), &"0.625".into())
    );
    let told = server.clip(&begun["id"]).await;
    assert_eq!(
        (&told["status"], &told["progress"]),
        (&"completed".into(), &100.into()),
        "{told}"
    );
    assert_eq!(
        (&told["brisk"]["seed"], &told["brisk"]["frames"]),
        (&7.into(), &5.into())
    );
    assert!(told["expires_at"].as_u64() > told["completed_at"].as_u64());

    let picture = brisk_media::decode_picture(&first_frame(), "first").unwrap();
    let request = VideoRequest::new("A Red heart jumps, twice!")
        .with(&video_keys::WIDTH, 48)
        .with(&video_keys::HEIGHT, 32)
        .with(&video_keys::FRAMES, 5)
        .with(&video_keys::FRAME_RATE, 8.0)
        .with(&keys::STEPS, 2)
        .with(&keys::SEED, 7)
        .with(&video_keys::IMAGE, Arc::new(picture));
    let wanted = made(request, REPLACE);
    let gif = server.content(&told["id"], "").await;
    assert_eq!(
        (gif.status.as_u16(), &gif.headers["content-type"]),
        (200, &"image/gif".parse().unwrap())
    );
    assert_eq!(gif.bytes, wanted.encode_gif().unwrap());
    assert_eq!(decode_clip(&gif.bytes, "gif").unwrap().frames().len(), 5);
    let apng = server.content(&told["id"], "?format=apng").await;
    assert_eq!(apng.headers["content-type"], "image/apng");
    assert_eq!(
        decode_clip(&apng.bytes, "apng").unwrap().frames(),
        wanted.frames()
    );
    let mut accepting = get(&format!("{PATH}/{}/content", told["id"].as_str().unwrap()));
    accepting
        .headers_mut()
        .insert("accept", "image/apng".parse().unwrap());
    assert_eq!(server.send(accepting).await.bytes, apng.bytes);
    for (rest, param) in [
        ("?format=mp4", "format"),
        ("?variant=thumbnail", "variant"),
        ("?x=1", "x"),
    ] {
        let reply = server.content(&told["id"], rest).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["param"]),
            (400, &param.into())
        );
    }
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("brisk_clips_total 1"), "{metrics}");
}

#[tokio::test]
async fn seconds_become_the_nearest_number_of_frames() {
    let server = server();
    let mut body = small();
    body.as_object_mut().unwrap().remove("frames");
    // 3 and 7 frames: of 1, 5, 9 and so on the nearest, the fewer of two.
    for (seconds, fps, frames) in [(json!(1), 3, 1), (json!("1.75"), 4, 5), (json!(1), 24, 25)] {
        let asked = with(body.clone(), json!({"seconds": seconds, "fps": fps}));
        let begun = server.begun(asked).await;
        assert_eq!(begun["brisk"]["frames"], frames, "{begun}");
        server.deleted(&begun["id"]).await;
    }
}

#[tokio::test]
async fn clips_are_listed_deleted_and_come_as_forms_and_jobs() {
    let server = server();
    let first = server.begun(small()).await;
    let told = server.clip(&first["id"]).await;
    assert_eq!(told["status"], "completed", "{told}");
    // A long one goes on while it is looked at.
    let long = server
        .begun(with(
            small(),
            json!({"steps": 100, "frames": 129, "size": "64x64"}),
        ))
        .await;
    let list = server.get(PATH).await.json();
    let ids: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|clip| &clip["id"])
        .collect();
    assert_eq!(ids, [&long["id"], &first["id"]]);
    assert_eq!(
        (&list["first_id"], &list["has_more"]),
        (&long["id"], &false.into())
    );
    let early = server.content(&long["id"], "").await;
    assert_eq!(early.status, 404);
    assert!(early.text().contains("no result yet"), "{}", early.text());
    let gone = server.deleted(&long["id"]).await.json();
    assert_eq!(
        (&gone["deleted"], &gone["object"]),
        (&true.into(), &"video.deleted".into())
    );
    assert_eq!(server.deleted(&long["id"]).await.status, 404);

    // The same by a job and by a form, and by nobody else's path.
    let job = json!({"kind": "video", "request": small()});
    let job = server.post("/brisk/v1/jobs", job).await.json();
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id).await["status"], "done");
    let result = server
        .get(&format!("/brisk/v1/jobs/{id}/result"))
        .await
        .json();
    assert_eq!(result["status"], "completed");
    let bytes = server.content(&first["id"], "").await.bytes;
    assert_eq!(server.content(&job["id"], "").await.bytes, bytes);
    assert_eq!(
        server
            .get(&format!("/brisk/v1/jobs/{id}/result/0"))
            .await
            .bytes,
        bytes
    );

    let mut form: Vec<u8> = Vec::new();
    let fields = [
        ("model", REPLACE),
        ("prompt", "x"),
        ("size", "48x32"),
        ("frames", "5"),
        ("steps", "1"),
    ];
    for (name, value) in fields {
        let part =
            format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend(part.into_bytes());
    }
    form.extend(
        b"--b\r\ncontent-disposition: form-data; name=\"input_reference\"; filename=\"a.png\"\r\n\
        content-type: image/png\r\n\r\n",
    );
    form.extend(first_frame());
    form.extend(b"\r\n--b--\r\n");
    let request = Request::post(PATH)
        .header("host", "127.0.0.1:8420")
        .header("content-type", "multipart/form-data; boundary=b");
    let reply = server.send(request.body(Body::from(form)).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        server.clip(&reply.json()["id"]).await["status"],
        "completed"
    );
}

#[tokio::test]
async fn a_first_frame_that_is_not_given_is_drawn() {
    let server = server();
    let body = json!({
        "model": REPLACE, "prompt": "red heart", "size": "32x32", "frames": 5, "steps": 1, "seed": 3, "fps": 8,
    });
    let begun = server.begun(body).await;
    let told = server.clip(&begun["id"]).await;
    assert_eq!(told["status"], "completed", "{told}");
    let stages = &told["brisk"]["seconds"]["stages"];
    assert!(stages["first frame"].is_number(), "{told}");
    let apng = server.content(&told["id"], "?format=apng").await;
    let model = ModelFolder::Disk(folder(REPLACE));
    let model = registry::open_video(&model, &OpenSettings::default()).unwrap();
    let (frame, quiet) = (model.first_frame("red heart"), Control::silent());
    let first = brisk::draw_first_frame(Some("sana-emoji"), &frame, (32, 32), 3, &quiet);
    let request = VideoRequest::new("red heart")
        .with(&video_keys::WIDTH, 32)
        .with(&video_keys::HEIGHT, 32)
        .with(&video_keys::FRAMES, 5)
        .with(&video_keys::FRAME_RATE, 8.0)
        .with(&keys::STEPS, 1)
        .with(&keys::SEED, 3)
        .with(&video_keys::IMAGE, Arc::new(first.unwrap()));
    let wanted = made(request, REPLACE);
    assert_eq!(
        decode_clip(&apng.bytes, "apng").unwrap().frames(),
        wanted.frames()
    );
}

#[tokio::test]
async fn what_no_clip_is_made_of_is_refused_by_name() {
    let server = server();
    let picture = data_url(&first_frame());
    for (more, param, word) in [
        (json!({"stpes": 1}), "stpes", "did you mean `steps`"),
        (json!({"prompt": ""}), "prompt", "is empty"),
        (
            json!({"input_reference": picture}),
            "input_reference",
            "text alone",
        ),
        (
            json!({"input_reference": "http://x/y.png"}),
            "input_reference",
            "nothing is fetched",
        ),
        (json!({"size": "40x32"}), "size", "multiple of 16"),
        (json!({"size": "large"}), "size", "WIDTHxHEIGHT"),
        (json!({"size": "4096x4096"}), "size", "at most"),
        (
            json!({"frames": 6}),
            "frames",
            "one more than a multiple of 4",
        ),
        (json!({"frames": 133}), "frames", "more than 129"),
        (json!({"steps": 101}), "steps", "more than 100"),
        (json!({"seconds": 2}), "seconds", "`frames`"),
        (
            json!({"frames": null, "seconds": 60}),
            "seconds",
            "at most 129",
        ),
        (
            json!({"frames": null, "seconds": "soon"}),
            "seconds",
            "number of seconds",
        ),
        (json!({"greedy": true}), "greedy", "greedy"),
        (json!({"model": "sana-emoji"}), "model", "clips"),
    ] {
        let reply = server.post(PATH, with(small(), more.clone())).await;
        assert_eq!(reply.status, 400, "{more}: {}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(error["param"], param, "{more}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(word),
            "{more}: {error}"
        );
    }
    let body = json!({"model": TEXT, "prompt": "x"});
    let reply = server.post("/v1/images/generations", body).await;
    assert_eq!(reply.json()["error"]["param"], "model", "{}", reply.text());
    // Without a model that draws the first frame, without one of clips, and what is no clip.
    let of = |model: String| {
        Server::with(Settings {
            models: vec![model],
            ..Settings::default()
        })
    };
    let alone = of(folder(REPLACE).display().to_string());
    let reply = alone.post(PATH, json!({"prompt": "x"})).await;
    let error = &reply.json()["error"];
    assert_eq!(error["param"], "input_reference", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no model here draws one"), "{message}");
    let other = of("sana-emoji".to_owned());
    let reply = other.post(PATH, json!({"prompt": "x"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text().contains("clips")),
        (404, true)
    );
    for id in ["x", "00000000000000000000000000000000"] {
        assert_eq!(server.deleted(&id.into()).await.status, 404);
        assert_eq!(server.content(&id.into(), "").await.status, 404);
    }
}
