//! What a user is told of a request that will hardly give what was hoped for: on stderr, in the JSON
//! document, and never as an error.

use serde_json::{Value, json};

use crate::harness::{Outcome, Place, replace};
use crate::text::with_tokenizer;

/// The warnings of a JSON document, each of which stderr shows too.
#[track_caller]
fn warnings(outcome: &Outcome) -> Vec<String> {
    let document = outcome.json();
    let listed = document["warnings"].as_array().expect("a list of warnings");
    let listed: Vec<String> = listed
        .iter()
        .map(|warning| warning.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        outcome.stderr.matches("warning: ").count(),
        listed.len(),
        "{}",
        outcome.stderr
    );
    for warning in &listed {
        let line = format!("warning: {warning}\n");
        assert!(outcome.stderr.contains(&line), "{}", outcome.stderr);
    }
    listed
}

#[track_caller]
fn drawn(place: &Place, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["image", "--steps", "1", "--json"];
    all.extend(arguments);
    warnings(&place.ok(&all))
}

#[track_caller]
fn expect_one(found: &[String], words: &[&str]) {
    assert_eq!(found.len(), 1, "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in {found:?}");
    }
}

#[test]
fn a_usual_request_gives_none() {
    let place = Place::new();
    for arguments in [
        &["a red heart"][..],
        &["Woman’s hat, 2 valentine", "pizza"],
        &["red heart", "--size", "128", "--guidance", "4.5"],
        &["red heart", "--guidance", "0"],
    ] {
        assert_eq!(drawn(&place, arguments), [""; 0], "{arguments:?}");
    }
}

#[test]
fn words_never_seen_are_named() {
    let place = Place::new();
    let found = drawn(&place, &["a quantum heart", "red Blorp quantum"]);
    expect_one(
        &found,
        &[
            "\"quantum\", \"blorp\" in",
            "\"1st place medal\"",
            "models show",
        ],
    );
    let found = drawn(&place, &["red heart", "--negative-prompt", "watermarks"]);
    expect_one(&found, &["\"watermarks\""]);

    let asked = [
        "text",
        "--json",
        "--gen-length",
        "32",
        "What is the capital of France?",
    ];
    let outcome = place.ok(&asked);
    expect_one(
        &warnings(&outcome),
        &["\"what\", \"is\", \"capital\", \"france\" in"],
    );
}

#[test]
fn sizes_and_guidance_far_from_the_trained_ones_are_named() {
    let place = Place::new();
    let found = drawn(&place, &["red heart", "--size", "64"]);
    expect_one(&found, &["64 × 64 pixels", "trained at 128 × 128"]);
    let found = drawn(&place, &["red heart", "--guidance", "12"]);
    expect_one(&found, &["guidance 12 is far above the 1.5"]);
}

#[test]
fn what_a_folder_says_decides() {
    let place = Place::new();
    let model = place.copy("pipelines/sprint", "model");
    let folder = model.to_str().unwrap();
    let draw = |place: &Place, guidance: &str| {
        let arguments = [
            "red heart",
            "--model",
            folder,
            "--guidance",
            guidance,
            "--instruction",
            "none",
        ];
        drawn(place, &arguments)
    };
    let found = draw(&place, "1");
    assert!(
        found
            .iter()
            .any(|told| told.contains("guidance 1 is far below the 4.5")),
        "{found:?}"
    );
    let settings = json!({"guidance_scale": 2.0});
    std::fs::write(model.join("generation_config.json"), settings.to_string()).unwrap();
    let found = draw(&place, "1");
    assert!(
        !found.iter().any(|told| told.contains("guidance")),
        "{found:?}"
    );

    std::fs::write(model.join("prompts.json"), r#"{"prompts": ["red heart"]}"#).unwrap();
    let found = draw(&place, "2");
    assert!(
        !found.iter().any(|told| told.contains("never seen")),
        "{found:?}"
    );
    std::fs::write(model.join("prompts.json"), "{}").unwrap();
    place.fails(
        1,
        &["prompts.json: missing field `prompts`", "expected"],
        &["image", "heart", "--model", folder, "-o", "x.png"],
    );
}

#[test]
fn an_empty_answer_says_why() {
    let place = Place::new();
    with_tokenizer(&place);
    let ask = |place: &Place| {
        let arguments = [
            "text",
            "--model",
            "model",
            "--json",
            "--gen-length",
            "8",
            "--block-length",
            "8",
            "w3",
        ];
        warnings(&place.ok(&arguments))
    };
    assert_eq!(ask(&place), [""; 0]);
    // Every token ends the text.
    let ends: Vec<u32> = (0..63).collect();
    let settings = json!({"eos_token_id": ends});
    let file = place.path("model/generation_config.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    expect_one(
        &ask(&place),
        &["answer is empty", "first token ends the text"],
    );
    std::fs::remove_file(file).unwrap();
    // Every word is a special token, which an answer does not show.
    let tokenizer = place.path("model/tokenizer.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&tokenizer).unwrap()).unwrap();
    let special = (0..62).map(|id| {
        json!({"id": id, "content": format!("w{id}"), "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    });
    let added = document["added_tokens"].as_array_mut().unwrap();
    added.extend(special);
    std::fs::write(&tokenizer, document.to_string()).unwrap();
    expect_one(&ask(&place), &["answer is empty", "special tokens"]);
}

#[test]
fn what_nothing_reads_is_refused_or_named() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let draw = ["image", "x", "--model", "model", "-o", "x.png"];
    let settings = model.join("generation_config.json");
    std::fs::write(
        &settings,
        r#"{"guidance_scale": 2, "num_inference_steps": 5}"#,
    )
    .unwrap();
    place.fails(
        1,
        &[
            "generation_config.json",
            "num_inference_steps",
            "guidance_scale",
        ],
        &draw,
    );
    std::fs::write(&settings, "\u{feff}{\"guidance_scale\": 2}").unwrap();
    place.ok(&["image", "x", "--model", "model", "--steps", "1"]);
    let config = model.join("transformer/config.json");
    replace(
        &config,
        "\"in_channels\"",
        "\"use_rope\": true, \"in_channels\"",
    );
    let found = drawn(&place, &["x", "--model", "model", "--instruction", "none"]);
    expect_one(
        &found,
        &["nothing reads use_rope (transformer/config.json)"],
    );
    std::fs::write(place.path("prompts.txt"), "a\0b\n").unwrap();
    place.fails(
        2,
        &["--prompt", "NUL"],
        &["image", "--prompts", "prompts.txt", "-o", "x.png"],
    );
}
