//! `/v1/images`: the pictures are the command line's.

use brisk::{Control, ImageRequest, keys};
use brisk_media::{Picture, decode_picture, encode_png, psnr};
use serde_json::{Value, json};

use crate::harness::{Server, data_url, get, picture};

const PATH: &str = "/v1/images/generations";

/// What `brisk image` writes.
fn drawn(request: ImageRequest) -> Vec<u8> {
    let mut model = brisk::open_image("sana-emoji").unwrap();
    let plan = model.plan(&request).unwrap();
    let images = model.generate(&plan, &Control::silent()).unwrap();
    brisk::described_png(&images[0], &plan, 0, "sana-emoji").unwrap()
}

fn asked(seed: u64) -> ImageRequest {
    ImageRequest::new("red heart")
        .with(&keys::SEED, seed)
        .with(&keys::STEPS, 3)
}

#[tokio::test]
async fn a_picture_is_the_command_lines() {
    let server = Server::new();
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 3});
    let reply = server.ok(PATH, body).await;
    assert_eq!(picture(&reply["data"][0]), drawn(asked(7)));
    assert_eq!(reply["data"][0]["seed"], 7);
    assert_eq!(reply["size"], "128x128");
    assert_eq!(reply["brisk"]["model"], "sana-emoji");
    assert_eq!(reply["brisk"]["steps"], 3);
    assert!(
        reply["brisk"]["seconds"]["stages"]["decode"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert!(reply["created"].as_u64().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn each_of_several_equals_one_asked_for_alone() {
    let server = Server::new();
    let body = json!({"prompt": "red heart", "n": 2, "seed": 7, "num_inference_steps": 3});
    let reply = server.ok(PATH, body).await;
    let data = reply["data"].as_array().unwrap();
    let seeds: Vec<u64> = data
        .iter()
        .map(|entry| entry["seed"].as_u64().unwrap())
        .collect();
    assert_eq!(seeds, [7, 8]);
    assert_eq!(picture(&data[1]), drawn(asked(8)));
    assert_ne!(picture(&data[0]), picture(&data[1]));
}

#[tokio::test]
async fn a_drawn_seed_draws_the_picture_again() {
    let server = Server::new();
    let first = server.ok(PATH, json!({"prompt": "cat", "steps": 2})).await;
    let seed = first["data"][0]["seed"].as_u64().unwrap();
    assert!(seed < 1 << 53);
    let body = json!({"prompt": "cat", "steps": 2, "seed": seed});
    let again = server.ok(PATH, body).await;
    assert_eq!(picture(&first["data"][0]), picture(&again["data"][0]));
}

#[tokio::test]
async fn formats_hold_the_same_picture() {
    let server = Server::new();
    let body = |format: &str| json!({"prompt": "red heart", "seed": 7, "steps": 3, "output_format": format});
    let decoded = |reply: &Value| decode_picture(&picture(&reply["data"][0]), "x").unwrap();
    let png = server.ok(PATH, body("png")).await;
    let webp = server.ok(PATH, body("webp")).await;
    let jpeg = server.ok(PATH, body("jpeg")).await;
    assert_eq!(decoded(&png), decoded(&webp));
    assert!(psnr(&decoded(&png), &decoded(&jpeg)).unwrap() > 25.0);
    assert_eq!(jpeg["output_format"], "jpeg");
    let mut plain = body("png");
    plain["file_metadata"] = false.into();
    let plain = server.ok(PATH, plain).await;
    assert_eq!(decoded(&png), decoded(&plain));
    let texts =
        |reply: &Value| brisk_media::read_png_metadata(&picture(&reply["data"][0])).unwrap();
    assert_eq!((texts(&png).len(), texts(&plain).len()), (2, 0));
}

#[tokio::test]
async fn a_link_leads_to_the_picture() {
    let server = Server::new();
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 3, "response_format": "url"});
    let reply = server.ok(PATH, body).await;
    let url = reply["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("http://127.0.0.1:8420").unwrap();
    let found = server.send(get(path)).await;
    assert_eq!(found.headers["content-type"], "image/png");
    assert_eq!(found.bytes, drawn(asked(7)));
    let wrong = server.get("/brisk/v1/results/00").await;
    assert_eq!(wrong.status, 404);
}

#[tokio::test]
async fn an_edit_starts_from_its_picture() {
    let server = Server::new();
    let start = Picture::filled(64, 64, [200, 40, 40]);
    let start = encode_png(&start, &[]).unwrap();
    let request = asked(7)
        .with(
            &keys::INIT_IMAGE,
            decode_picture(&start, "x").unwrap().into(),
        )
        .with(&keys::STRENGTH, 0.7);
    let expected = decode_picture(&drawn(request), "x").unwrap();
    let fields = json!({"prompt": "red heart", "seed": 7, "steps": 3, "strength": 0.7});
    let mut body = fields.clone();
    body["images"] = json!([{"image_url": data_url(&start)}]);
    let reply = server.ok("/v1/images/edits", body).await;
    let edited = decode_picture(&picture(&reply["data"][0]), "x").unwrap();
    assert_eq!(edited, expected);

    let mut form = Vec::new();
    for (name, value) in fields.as_object().unwrap() {
        let value = value.as_str().map_or(value.to_string(), str::to_owned);
        let part =
            format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend(part.into_bytes());
    }
    form.extend(
        b"--b\r\ncontent-disposition: form-data; name=\"image[]\"; filename=\"a.png\"\r\n\
          content-type: image/png\r\n\r\n",
    );
    form.extend(&start);
    form.extend(b"\r\n--b--\r\n");
    let request = axum::http::Request::post("/v1/images/edits")
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(form.into())
        .unwrap();
    let reply = server.send(request).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let edited = decode_picture(&picture(&reply.json()["data"][0]), "x").unwrap();
    assert_eq!(edited, expected);
}

#[tokio::test]
async fn a_stream_shows_previews_and_ends_with_the_picture() {
    let server = Server::new();
    let body = json!({
        "prompt": "red heart", "seed": 7, "steps": 3, "stream": true, "partial_images": 2, "n": 2,
    });
    let reply = server.post(PATH, body).await;
    assert_eq!(
        reply.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(reply.headers["cache-control"], "no-store");
    let events = reply.events();
    let data: Vec<Value> = events
        .iter()
        .map(|(name, data)| {
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], **name);
            data
        })
        .collect();
    let of = |kind: &str| -> Vec<&Value> {
        let wanted = format!("image_generation.{kind}");
        data.iter().filter(|data| data["type"] == wanted).collect()
    };
    let completed = of("completed");
    assert_eq!(completed.len(), 2);
    // What was shown on the way changes nothing of the file.
    assert_eq!(picture(completed[0]), drawn(asked(7)));
    assert_eq!(
        (&completed[1]["image_index"], &completed[1]["seed"]),
        (&json!(1), &json!(8))
    );
    let partial = of("partial_image");
    assert!(
        !partial.is_empty() && partial.len() <= 4,
        "{}",
        partial.len()
    );
    assert_eq!(partial[0]["partial_image_index"], 0);
    assert_eq!(&picture(partial[0])[1..4], b"PNG");
}

#[tokio::test]
async fn what_is_kept_on_disk_is_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(brisk_server::Settings {
        save: Some(folder.path().to_owned()),
        ..Default::default()
    });
    let reply = server
        .ok(PATH, json!({"prompt": "red heart", "seed": 7, "steps": 3}))
        .await;
    assert_eq!(reply["data"][0]["saved"], true);
    let files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(files.len(), 1);
    assert_eq!(
        std::fs::read(files[0].path()).unwrap(),
        picture(&reply["data"][0])
    );
}

/// What the page's "use these settings" does: every honoured setting of the file becomes a field.
#[tokio::test]
async fn the_settings_of_a_picture_draw_the_same_file() {
    let server = Server::new();
    let capabilities = server.get("/brisk/v1/capabilities").await.json();
    let models = capabilities["models"].as_array().unwrap();
    let model = models.iter().find(|model| model["id"] == "sana-emoji");
    let fields = model.unwrap()["tasks"]["image"]["fields"]
        .as_object()
        .unwrap();
    let first = server
        .ok(
            PATH,
            json!({"prompt": "red heart", "steps": 3, "partial_images": 2}),
        )
        .await;
    let first = picture(&first["data"][0]);
    let texts = brisk_media::read_png_metadata(&first).unwrap();
    let (_, settings) = texts.iter().find(|(key, _)| key == "brisk").unwrap();
    let settings: Value = serde_json::from_str(settings).unwrap();
    let mut body = json!({"model": "sana-emoji", "prompt": settings["prompt"]});
    let mut used = 0;
    for (name, value) in settings.as_object().unwrap() {
        let field = fields.get(name);
        if field.is_some_and(|field| field["class"] == "model" && field["honoured"] == true) {
            body[name] = value.clone();
            used += 1;
        }
    }
    assert!(used > 5, "{body}");
    let again = server.ok(PATH, body.clone()).await;
    assert!(picture(&again["data"][0]) == first, "{settings} by {body}");
}

#[tokio::test]
async fn usage_counts_the_prompt_and_the_latent_cells() {
    let server = Server::new();
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 1, "n": 2});
    let usage = server.ok(PATH, body).await["usage"].clone();
    // 128 pixels a side are 8 cells of 16.
    assert_eq!(usage["output_tokens"], 2 * 64);
    let prompt = usage["input_tokens"].as_u64().unwrap();
    assert!(prompt >= 2 * 2 && prompt.is_multiple_of(2), "{usage}");
    assert_eq!(usage["total_tokens"], prompt + 128);
}

/// A small decoder of previews costs next to nothing, so all that were asked for come.
#[tokio::test]
async fn a_stream_has_the_previews_that_it_asks_for() {
    let server = Server::new();
    let body =
        json!({"prompt": "red heart", "seed": 7, "steps": 8, "stream": true, "partial_images": 3});
    let reply = server.post(PATH, body).await;
    let events = reply.events();
    let partial = events
        .iter()
        .filter(|(name, _)| name.ends_with("partial_image"));
    assert_eq!(partial.count(), 3);
}
