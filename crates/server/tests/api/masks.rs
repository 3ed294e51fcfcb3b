//! Masks over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};
use serde_json::{Value, json};

use crate::harness::{Server, data_url};

const PATH: &str = "/brisk/v1/segment";

fn photo() -> String {
    let pixels = (0..90 * 70 * 3)
        .map(|at| (at * at / 53 % 256) as u8)
        .collect();
    let picture = Picture::new(90, 70, pixels).unwrap();
    data_url(&brisk_media::encode_png(&picture, &[]).unwrap())
}

/// The mask of a PNG in a reply.
fn drawn(mask: &Value) -> Mask {
    let bytes = STANDARD.decode(mask["b64_json"].as_str().unwrap()).unwrap();
    Mask::from_picture(&brisk_media::decode_picture(&bytes, "mask").unwrap()).unwrap()
}

#[tokio::test]
async fn boxes_become_masks_in_every_form() {
    let server = Server::new();
    let boxes = json!([{"name": "A", "box": [5, 5, 60, 40]}, [40, 30, 90, 70]]);
    let ask = |format: &str| json!({"image": photo(), "boxes": boxes, "mask_format": format});
    let pictures = server.ok(PATH, ask("png")).await;
    let (polygons, coco) = (
        server.ok(PATH, ask("polygons")).await,
        server.ok(PATH, ask("coco")).await,
    );
    assert_eq!(
        (&pictures["width"], &pictures["height"]),
        (&90.into(), &70.into())
    );
    assert_eq!(pictures["masks"][0]["name"], "A");
    assert_eq!(pictures["brisk"]["model"], "sam-text");
    assert!(pictures["brisk"]["seconds"]["queue"].is_number());
    let masks = pictures["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    for (index, told) in masks.iter().enumerate() {
        let mask = drawn(told);
        assert_eq!(told["area"], mask.area());
        let runs = coco["masks"][index]["segmentation"]["counts"]
            .as_str()
            .unwrap();
        assert_eq!(Mask::from(&Runs::from_text(90, 70, runs).unwrap()), mask);
        assert_eq!(polygons["masks"][index]["polygons"], json!(mask.outlines()));
    }
}

#[tokio::test]
async fn a_word_becomes_masks_of_its_characters_and_a_job_does_so_too() {
    let server = Server::new();
    let word = json!({"polygon": [[5, 5], [80, 5], [80, 40], [5, 40]], "text": "ab"});
    let request = json!({"image": photo(), "words": [word]});
    let reply = server.ok(PATH, request.clone()).await;
    assert_eq!(reply["words"][0]["text"], "ab");
    let characters = reply["words"][0]["characters"].as_array().unwrap();
    assert_eq!(characters[0]["class"], "a");
    let known = reply["masks"].as_array().unwrap().len() as u64;
    assert!(
        characters
            .iter()
            .all(|character| character["mask"].as_u64().unwrap() < known)
    );

    let job = server
        .post(
            "/brisk/v1/jobs",
            json!({"kind": "masks", "request": request}),
        )
        .await;
    assert_eq!(job.status, 202, "{}", job.text());
    let id = job.json()["id"].as_str().unwrap().to_owned();
    let ended = server.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["seed"]),
        (&"done".into(), &Value::Null)
    );
    let again = server
        .get(&format!("/brisk/v1/jobs/{id}/result"))
        .await
        .json();
    assert_eq!(again["masks"], reply["masks"]);
    assert_eq!(
        server
            .get(&format!("/brisk/v1/jobs/{id}/result/0"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn what_says_nothing_to_find_or_too_much_is_refused_by_name() {
    let server = Server::new();
    for (fields, param) in [
        (json!({}), "point"),
        (json!({"point": [1, 2, 3]}), "point"),
        (json!({"box": [100, 100, 500, 500]}), "box"),
        (json!({"boxes": [{"bix": [1, 2, 3, 4]}]}), "boxes"),
        (
            json!({"boxes": [[1, 1, 9, 9]], "everything": true}),
            "everything",
        ),
        (json!({"words": "all"}), "words"),
        (
            json!({"words": [{"polygon": [[1, 1], [9, 1], [9, 9], [1, 9]]}], "box": [1, 1, 9, 9]}),
            "box",
        ),
        (json!({"box": [1, 1, 9, 9], "stream": true}), "stream"),
        (json!({"box": [1, 1, 9, 9], "model": "sana-emoji"}), "model"),
    ] {
        let mut body = json!({"image": photo()});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let reply = server.post(PATH, body).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.text());
        let error = &reply.json()["error"];
        let named = error["param"] == param || error["message"].as_str().unwrap().contains(param);
        assert!(named, "{fields}: {error}");
    }
    // The model in the box finds words by itself.
    let body = json!({"image": photo(), "words": "auto"});
    let reply = server.post(PATH, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json()["words"].is_array(), "{}", reply.text());
}
