//! `brisk batch run`: a file of requests on this machine.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Place;

/// A line in OpenAI's format.
pub fn line(name: &str, url: &str, body: Value) -> String {
    let line = json!({"custom_id": name, "method": "POST", "url": url, "body": body});
    format!("{line}\n")
}

/// Where pictures are asked for.
pub const PICTURES: &str = "/v1/images/generations";

/// The only folder in a folder: the batch's.
pub fn batch_in(out: &Path) -> std::path::PathBuf {
    let folders = std::fs::read_dir(out).unwrap();
    let folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

/// Results of a batch by their paths, without reports.
pub fn results(batch: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in std::fs::read_dir(batch).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            let name = file.strip_prefix(batch).unwrap().display().to_string();
            found.insert(name, std::fs::read(&file).unwrap());
        }
    }
    found
}

/// The lines of a report.
pub fn report(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_file_gives_what_the_commands_give() {
    let place = Place::new();
    let options = ["--seed", "7", "--steps", "3", "-o", "heart.png"];
    place.ok(&[&["image", "red heart"], &options[..]].concat());
    let question = "Mia has 34 beads. Monday: finds 7 more. How many beads does Mia have now?";
    let answer = place.ok(&["text", question, "--gen-length", "64"]).stdout;
    let picture = json!({"prompt": "red heart", "seed": 7, "steps": 3});
    let several = json!({"prompt": "blue star", "n": 2, "steps": 1});
    let chat = json!({"messages": [{"role": "user", "content": question}], "max_tokens": 64});
    let file = line("heart", PICTURES, picture)
        + &line("answer", "/v1/chat/completions", chat)
        + &line("star", PICTURES, several)
        + &line("bad", PICTURES, json!({"prompt": "x", "steps": 1000}));
    std::fs::write(place.path("requests.jsonl"), file).unwrap();
    let run = ["batch", "run", "requests.jsonl", "--out", "out", "--json"];
    let outcome = place.run(&run);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&told["done"], &told["failed"]), (&json!(3), &json!(1)));

    let batch = batch_in(&place.path("out"));
    assert_eq!(told["batch"], batch.file_name().unwrap().to_str().unwrap());
    let made = results(&batch);
    let named = |end: &str| made.iter().find(|(name, _)| name.ends_with(end)).unwrap().1;
    assert_eq!(
        *named("/heart.png"),
        std::fs::read(place.path("heart.png")).unwrap()
    );
    let written: Value = serde_json::from_slice(named("/answer.json")).unwrap();
    let text = written["choices"][0]["message"]["content"].as_str();
    assert_eq!(text, Some(answer.trim_end_matches('\n')));
    assert_ne!(named("/star-0.png"), named("/star-1.png"));
    assert_eq!(made.len(), 4);

    let told = report(&batch.join("results.jsonl"));
    let names: Vec<&str> = told
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["heart", "answer", "star", "bad"]);
    assert_eq!(told[0]["seed"], 7);
    assert_eq!(told[2]["files"].as_array().unwrap().len(), 2);
    assert_eq!(told[3]["error"]["param"], "steps");

    // Again: what is there stays, and what was removed comes back as it was.
    let gone = made
        .keys()
        .find(|name| name.ends_with("/star-1.png"))
        .unwrap();
    std::fs::remove_file(batch.join(gone)).unwrap();
    let outcome = place.run(&run);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&told["done"], &told["found"]), (&json!(3), &json!(2)));
    assert_eq!(results(&batch), made);
}

#[test]
fn shards_make_the_whole() {
    let place = Place::new();
    let prompts: String = (0..5)
        .map(|number| format!("red heart {number}\n"))
        .collect();
    std::fs::write(place.path("prompts.txt"), prompts).unwrap();
    let run = |out: &str, shard: &str| {
        let set = ["--set", "steps=1", "--set", "output_format=webp"];
        let run = [
            "batch",
            "run",
            "prompts.txt",
            "--out",
            out,
            "--shard",
            shard,
        ];
        place.ok(&[&run[..], &set].concat());
    };
    run("whole", "1/1");
    run("parts", "1/2");
    run("parts", "2/2");
    let (whole, parts) = (
        batch_in(&place.path("whole")),
        batch_in(&place.path("parts")),
    );
    assert_eq!(whole.file_name(), parts.file_name());
    assert_eq!(results(&whole), results(&parts));
    assert_eq!(results(&whole).len(), 5);
    let first = report(&parts.join("results-1-of-2.jsonl"));
    let names: Vec<&str> = first
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["1", "3", "5"]);
    assert_eq!(report(&parts.join("results-2-of-2.jsonl")).len(), 2);
}

#[test]
fn files_that_are_none_are_refused_before_any_work() {
    let place = Place::new();
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("good.txt", "red heart\n");
    write("empty.txt", "\n");
    write(
        "wrong.jsonl",
        "{\"body\": {\"prompt\": \"x\", \"stpes\": 1}}\n",
    );
    write(
        "model.jsonl",
        "{\"body\": {\"prompt\": \"x\", \"model\": \"gpt-9\"}}\n",
    );
    let run = |file: &'static str| ["batch", "run", file, "--out", "out"];
    place.fails(2, &["none.txt", "cannot read"], &run("none.txt"));
    place.fails(2, &["empty.txt", "no requests"], &run("empty.txt"));
    place.fails(2, &["line 1", "did you mean `steps`"], &run("wrong.jsonl"));
    place.fails(2, &["line 1", "no gpt-9"], &run("model.jsonl"));
    let with = |more: &[&'static str]| [&run("good.txt")[..], more].concat();
    place.fails(2, &["--shard", "3/2"], &with(&["--shard", "3/2"]));
    place.fails(2, &["--set", "FIELD=VALUE"], &with(&["--set", "steps"]));
    place.fails(2, &["--url", "/v1/other"], &with(&["--url", "/v1/other"]));
    let bucket = ["batch", "run", "good.txt", "--out", "ftp://x/y"];
    place.fails(2, &["ftp", "s3://"], &bucket);
}
