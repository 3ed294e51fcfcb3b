//! Files as editors, browsers, killed runs and broken copies leave them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Outcome, Place, fixture, gradient};

const MARK: &[u8] = b"\xef\xbb\xbf";

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[cfg(unix)]
#[test]
fn what_never_ends_is_refused_by_its_name() {
    let place = Place::new();
    put(&place.path("a.png"), &gradient(8, 8, 0));
    for arguments in [
        "train plot /dev/zero -o x.svg",
        "bench plot /dev/zero -o x.svg",
        "compare /dev/zero a.png",
        "train text --recipe /dev/zero -o run",
        "quantize sana-emoji -o q --prompts /dev/zero",
        "image x --instruction /dev/zero",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        place.fails(1, &["/dev/zero", "larger than", "MiB"], &arguments);
    }
}

#[test]
fn every_editor_saves_the_same_text() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let index = std::fs::read(model.join("model_index.json")).unwrap();
    put(&model.join("model_index.json"), &[MARK, &index].concat());
    let draw = |instruction: &str, to: &str| {
        let options = "--model model --size 64 --no-binning --steps 2 --seed 1 --instruction";
        let mut arguments = vec!["image", "cat"];
        arguments.extend(options.split(' '));
        arguments.extend([instruction, "-o", to]);
        place.ok(&arguments);
        brisk_media::read_picture(&place.path(to)).unwrap()
    };
    put(&place.path("plain"), b"You paint.\nUser Prompt: ");
    let plain = draw("plain", "plain.png");
    for (name, bytes) in [
        ("mark", &b"\xef\xbb\xbfYou paint.\nUser Prompt: "[..]),
        ("returns", b"You paint.\r\nUser Prompt: "),
        ("last", b"You paint.\nUser Prompt: \n"),
        ("all", b"\xef\xbb\xbfYou paint.\r\nUser Prompt: \r\n"),
    ] {
        put(&place.path(name), bytes);
        assert_eq!(draw(name, "other.png"), plain, "{name}");
    }
    put(&place.path("other"), b"You paint!\nUser Prompt: ");
    assert_ne!(draw("other", "other.png"), plain, "the instruction counts");
}

#[test]
fn a_picture_that_is_cut_is_no_picture() {
    let place = Place::new();
    let whole = std::fs::read(fixture("media/formats/baseline.jpg")).unwrap();
    put(&place.path("whole.jpg"), &whole);
    put(&place.path("half.jpg"), &whole[..whole.len() * 3 / 4]);
    let words = ["half.jpg", "ends in the middle of the picture"];
    place.fails(1, &words, &["compare", "half.jpg", "whole.jpg"]);
    place.fails(1, &words, &["inspect", "half.jpg"]);
    place.ok(&["compare", "whole.jpg", "whole.jpg"]);
}

#[test]
fn pointers_and_indexes_are_not_weights() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let weights = model.join("transformer/diffusion_pytorch_model.safetensors");
    put(
        &weights,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 72600\n",
    );
    place.fails(1, &["git lfs pull"], &["image", "cat", "--model", "model"]);
    let model = place.copy("language_models/llada_0", "words");
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    put(
        &model.join("model.safetensors.index.json"),
        br#"{"weight_map": {"a": "model.safetensors.index.json"}}"#,
    );
    let words = ["model.safetensors.index.json", "a shard must be"];
    let index = "words/model.safetensors.index.json";
    place.fails(1, &words, &["inspect", index]);
    let outcome = place.run(&["inspect", "words"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("damaged") && outcome.stderr.contains("a shard must be"));
    put(&model.join("config.json"), b"<!DOCTYPE html><html>");
    let words = ["config.json", "web page"];
    place.fails(1, &words, &["text", "hello", "--model", "words"]);
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let place = Place::new();
    let entry = r#"{"step": 1, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.0, "seconds": 1.0,
        "samples_per_second": 1.0, "skipped": 0}"#;
    put(
        &place.path("log.jsonl"),
        entry.replace('\n', " ").as_bytes(),
    );
    put(&place.path(".x.svg.999999-0.tmp"), &[0; 1000]);
    place.ok(&["train", "plot", "log.jsonl", "-o", "x.svg"]);
    assert_eq!(
        place.files(),
        [place.path("log.jsonl"), place.path("x.svg")]
    );
}

#[test]
fn an_icon_beyond_all_measure_is_named() {
    let place = Place::new();
    for (name, text) in [
        ("noto/package.json", "{}"),
        ("emojibase-data/package.json", "{}"),
        ("noto/chars.json", r#"{"1f600": "grin"}"#),
        (
            "noto/icons.json",
            r#"{"prefix": "noto", "width": 1000000000, "height": 1,
                "icons": {"grin": {"body": "<circle r=\"1e30\"/>"}}}"#,
        ),
        (
            "emojibase-data/meta/groups.json",
            r#"{"groups": {"0": "smileys"}}"#,
        ),
        (
            "emojibase-data/en/data.json",
            r#"[{"label": "Grin", "hexcode": "1F600", "tags": [], "group": 0}]"#,
        ),
    ] {
        put(&place.path("npm").join(name), text.as_bytes());
    }
    for size in ["8", "32"] {
        let options = ["--npm", "npm", "-o", "e.safetensors", "--size", size];
        let words = ["noto", "grin", "1000000000x1"];
        place.fails(
            1,
            &words,
            &[&["train", "prepare-emoji"][..], &options].concat(),
        );
    }
}

/// A hub with one model, `own/tiny`, of two files; answers until the test ends.
fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let _ = lines.map(Result::unwrap).find(String::is_empty);
            let body = match first.split(' ').nth(1).unwrap() {
                path if path.starts_with("/api/") => format!(
                    r#"{{"sha": "{}", "siblings": [{{"rfilename": "config.json", "size": 2}},
                        {{"rfilename": "model.safetensors", "size": 7}}]}}"#,
                    "a".repeat(40)
                ),
                path if path.ends_with("config.json") => "{}".to_owned(),
                _ => "weights".to_owned(),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    endpoint
}

#[test]
fn a_model_is_pulled_ahead_of_its_use() {
    let place = Place::new();
    let words = ["own/tiny", "HF_HUB_OFFLINE"];
    place.fails(1, &words, &["models", "pull", "own/tiny"]);
    let words = ["own/tiny", "brisk models pull own/tiny"];
    place.fails(1, &words, &["image", "x", "--model", "own/tiny"]);
    place.fails(1, &["owner/name"], &["models", "pull", "no-id"]);
    place.fails(2, &["pull"], &["models", "--json", "pull", "own/tiny"]);

    let endpoint = hub();
    let run = |id: &str| {
        let mut command = place.command(&["models", "pull", id]);
        command
            .env("HF_HUB_OFFLINE", "0")
            .env("HF_ENDPOINT", &endpoint)
            .env("HF_HOME", "$PLACE/cache")
            .env("PLACE", place.path("."));
        Outcome::of(command.output().unwrap())
    };
    for id in ["own/tiny", "own/tiny@v1"] {
        let outcome = run(id);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let folder = Path::new(outcome.stdout.trim());
        assert_eq!(
            std::fs::read(folder.join("model.safetensors")).unwrap(),
            b"weights"
        );
        assert!(
            outcome.stderr.contains("downloading own/tiny"),
            "{}",
            outcome.stderr
        );
    }
    let outcome = run("own/tiny/model.safetensors");
    assert!(
        outcome.stdout.trim().ends_with("model.safetensors"),
        "{}",
        outcome.stderr
    );
    let refs = place.path("cache/hub/models--own--tiny/refs");
    assert_eq!(
        std::fs::read_to_string(refs.join("v1")).unwrap(),
        "a".repeat(40)
    );
}
