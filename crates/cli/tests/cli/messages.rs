//! What comes from a file stays harmless and short on its way to a terminal.

use std::borrow::Cow;
use std::io::Write;
use std::process::Stdio;

use brisk_store::{Dtype, OutTensor, write_safetensors};
use serde_json::json;

use crate::harness::{Outcome, Place, replace};
use crate::text::with_tokenizer;

fn weights(place: &Place, name: &str, tensor: &str, note: &str) {
    let tensors = [OutTensor {
        name: tensor.to_owned(),
        dtype: Dtype::F32,
        shape: vec![1],
        data: Cow::Owned(vec![0; 4]),
    }];
    let metadata = [("note".to_owned(), note.to_owned())].into();
    write_safetensors(&place.path(name), &tensors, &metadata).unwrap();
}

#[test]
fn control_characters_of_files_are_escaped() {
    let place = Place::new();
    weights(
        &place,
        "e.safetensors",
        "a\u{1b}[31m\nerror: red",
        "x\u{1b}]0;title\u{7}\u{9b}2J\nerror: y",
    );
    let picture = brisk_media::Picture::new(1, 1, vec![0; 3]).unwrap();
    let texts = [("prompt".to_owned(), "a\u{9b}2J\nerror: z".to_owned())];
    std::fs::write(
        place.path("p.png"),
        brisk_media::encode_png(&picture, &texts).unwrap(),
    )
    .unwrap();
    for arguments in [
        &["inspect", "e.safetensors", "--tensors"][..],
        &["inspect", "e.safetensors", "--tensors", "--json"],
        &["inspect", "p.png"],
        &["inspect", "p.png", "--json"],
    ] {
        let outcome = place.ok(arguments);
        let text = outcome.stdout + &outcome.stderr;
        let obeyed = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(obeyed), "{arguments:?}: {text:?}");
        assert!(
            !text.lines().any(|line| line.starts_with("error:")),
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn long_names_are_cut() {
    let place = Place::new();
    weights(&place, "long.safetensors", &"n".repeat(70_000), "");
    let outcome = place.ok(&["inspect", "long.safetensors", "--tensors"]);
    assert!(
        outcome.stdout.contains("nnnn") && outcome.stdout.len() < 2000,
        "{}",
        outcome.stdout.len()
    );

    with_tokenizer(&place);
    let file = place.path("model/chat_template.jinja");
    for (template, wanted) in [
        ("{{ raise_exception('x' * 1000000) }}", "xxxx"),
        (
            "{{ raise_exception('a\x1b[2J\nerror: mine') }}",
            "a\\u{1b}[2J",
        ),
        ("{{ messages|unheard }}", "line 1: unknown filter 'unheard'"),
    ] {
        std::fs::write(&file, template).unwrap();
        let outcome = place.run(&["text", "--model", "model", "w3"]);
        let Outcome { stderr, .. } = &outcome;
        assert_eq!(outcome.code, Some(1), "{stderr}");
        assert!(stderr.len() < 5000 && stderr.contains(wanted), "{stderr}");
        assert!(
            !stderr.contains('\u{1b}') && !stderr.contains("\nerror: mine"),
            "{stderr}"
        );
    }
}

#[test]
fn a_model_without_a_template_says_so() {
    let place = Place::new();
    with_tokenizer(&place);
    replace(
        &place.path("model/tokenizer_config.json"),
        "chat_template",
        "no_template",
    );
    let run = |more: &[&str]| {
        let arguments = [
            &[
                "text",
                "--model",
                "model",
                "w3",
                "--gen-length",
                "8",
                "--block-length",
                "8",
            ],
            more,
        ]
        .concat();
        place.ok(&arguments).stderr
    };
    assert!(run(&[]).contains("no chat template"));
    assert!(!run(&["--raw"]).contains("no chat template"));
}

#[test]
fn a_template_is_chosen_by_name() {
    let place = Place::new();
    with_tokenizer(&place);
    let folder = place.path("model/additional_chat_templates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(place.path("model/chat_template.jinja"), "w1 w2 w3").unwrap();
    std::fs::write(folder.join("rag.jinja"), "w1").unwrap();
    let tokens = |more: &[&str]| {
        let arguments = [
            &[
                "text",
                "--model",
                "model",
                "w3",
                "--json",
                "--gen-length",
                "8",
                "--block-length",
                "8",
            ],
            more,
        ]
        .concat();
        place.ok(&arguments).json()["answers"][0]["prompt_tokens"].clone()
    };
    assert_eq!(tokens(&[]), json!(3));
    assert_eq!(tokens(&["--chat-template", "rag"]), json!(1));
    place.fails(
        1,
        &["no template named tool_use", "default, rag"],
        &[
            "text",
            "--model",
            "model",
            "w3",
            "--chat-template",
            "tool_use",
        ],
    );
}

#[test]
fn a_conversation_has_commands() {
    let place = Place::new();
    with_tokenizer(&place);
    let talk = |lines: &str| {
        let arguments = [
            "text",
            "--model",
            "model",
            "--chat",
            "--gen-length",
            "8",
            "--block-length",
            "8",
        ];
        let mut running = place
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        running
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        Outcome::of(running.wait_with_output().unwrap())
    };
    let outcome = talk("/help\nw3\n/save talk.json\n/quit\nw4\n");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/save FILE"), "{}", outcome.stderr);
    let saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("talk.json")).unwrap()).unwrap();
    assert_eq!(saved["messages"].as_array().unwrap().len(), 2);
    assert_eq!(
        saved["messages"][0],
        json!({"role": "user", "content": "w3"})
    );
    let outcome = talk("/sing\n");
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("/sing is no command"),
        "{}",
        outcome.stderr
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_between_turns_leaves() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    with_tokenizer(&place);
    let arguments = [
        "text",
        "--model",
        "model",
        "--chat",
        "--gen-length",
        "8",
        "--block-length",
        "8",
    ];
    let mut running = place
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = running.stdin.take().unwrap();
    input.write_all(b"w3\n").unwrap();
    let mut answer = String::new();
    BufReader::new(running.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    // It prints the answer a moment before it waits for the next question.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let interrupt = ["-INT", &running.id().to_string()];
    std::process::Command::new("kill")
        .args(interrupt)
        .status()
        .unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
}

#[test]
fn charts_are_named_as_what_they_are() {
    let place = Place::new();
    std::fs::write(place.path("log.jsonl"), "").unwrap();
    place.fails(
        2,
        &["loss.png", ".svg"],
        &["train", "plot", "log.jsonl", "-o", "loss.png"],
    );
    place.fails(
        2,
        &["roof.png", ".svg"],
        &["bench", "plot", "log.jsonl", "-o", "roof.png"],
    );
}
