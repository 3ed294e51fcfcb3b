//! `brisk text`, and `probe --component language_model`.

use std::path::Path;

use brisk_nn::{DType, Tensor};
use brisk_testkit::{Golden, assert_close, load_tensors};
use serde_json::{Value, json};

use crate::harness::Place;

const CASE: &str = "language_models/llada_0";

fn numbers(x: &Tensor) -> Vec<u32> {
    let x = x.to_dtype(DType::U32).unwrap().flatten_all().unwrap();
    x.to_vec1().unwrap()
}

fn write(path: &Path, name: &str, x: &Tensor) {
    let tensors = std::collections::HashMap::from([(name, x.to_dtype(DType::I64).unwrap())]);
    brisk_testkit::save_tensors(path, &tensors);
}

/// The model with a tokenizer of words `w0` to `w59`, its end and its mask.
pub fn with_tokenizer(place: &Place) {
    let folder = place.copy(CASE, "model");
    let mut words: Vec<String> = (0..62).map(|index| format!("w{index}")).collect();
    words.extend(["<|end|>".to_owned(), "<|mask|>".to_owned()]);
    let vocabulary: serde_json::Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(id, word)| (word.clone(), id.into()))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(62, "<|end|>"), special(63, "<|mask|>")],
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({
        "mask_token": "<|mask|>", "eos_token": "<|end|>",
        "chat_template": "{% for m in messages %}w1 {{ m['content'] }} w2 {% endfor %}",
    });
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

#[test]
fn token_files_go_through_every_cache() {
    let place = Place::new();
    place.copy(CASE, "model");
    let golden = Golden::open(&format!("{CASE}/generation.safetensors"));
    write(
        &place.path("in.safetensors"),
        "input_ids",
        &golden.get("inputs.prompt"),
    );
    for (cache, rule, flags) in [
        ("none", "quota32", &["--steps", "32"][..]),
        ("prefix", "threshold0.9", &["--threshold", "0.9"]),
        ("dual", "threshold0.3", &["--threshold", "0.3"]),
        ("dual", "factor1", &["--factor", "1"]),
    ] {
        let mut arguments = vec![
            "text",
            "--model",
            "model",
            "--input-ids",
            "in.safetensors",
            "--output-ids",
            "out.safetensors",
            "--gen-length",
            "32",
            "--block-length",
            "8",
            "--cache",
            cache,
            "--temperature",
            "0",
            "--no-early-stop",
        ];
        arguments.extend(flags);
        let outcome = place.ok(&arguments);
        assert_eq!(outcome.stdout.split_whitespace().count(), 32);
        let found = load_tensors(place.path("out.safetensors"));
        let name = format!("{cache}.{rule}");
        let wanted = |part: &str| numbers(&golden.get(&format!("{name}.{part}")));
        assert_eq!(found["output_ids"].dims(), [1, 41]);
        assert_eq!(numbers(&found["output_ids"]), wanted("ids"), "{name}");
        assert_eq!(numbers(&found["nfe"]), wanted("nfe"), "{name}");
    }
}

#[test]
fn a_text_is_templated_answered_and_counted() {
    let place = Place::new();
    with_tokenizer(&place);
    let flags = ["--model", "model", "--gen-length", "16", "--json"];
    let run = |extra: &[&str]| -> Value {
        let arguments = [&["text"][..], extra, &flags[..]].concat();
        serde_json::from_str(&place.ok(&arguments).stdout).unwrap()
    };
    let chat = run(&["w5 w6"]);
    let answer = &chat["answers"][0];
    assert_eq!(answer["prompt_tokens"], 4, "the template adds two words");
    let (tokens, forwards) = (
        answer["tokens"].as_f64().unwrap(),
        answer["forwards"].as_f64().unwrap(),
    );
    assert_eq!(
        answer["tokens_per_forward"].as_f64().unwrap(),
        tokens / forwards
    );
    let words = answer["text"].as_str().unwrap().split_whitespace().count();
    assert_eq!(words as f64, tokens);
    assert_eq!(run(&["w5 w6", "--raw"])["answers"][0]["prompt_tokens"], 2);
    let both = run(&["w5 w6", "w7 w8 w9"]);
    assert_eq!(
        both["answers"][0], chat["answers"][0],
        "a batch changes nothing"
    );

    let filled = run(&["w5 <|mask|> w7", "--raw", "--infill"]);
    let text = filled["answers"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("w5 w") && text.split_whitespace().nth(2) == Some("w7"),
        "{text}"
    );
    let plain = place.ok(&["text", "w5 w6", "--model", "model", "--gen-length", "16"]);
    assert_eq!(plain.stdout.trim(), answer["text"].as_str().unwrap());
    assert!(plain.stderr.contains("tokens a pass"), "{}", plain.stderr);
}

/// Runs with lines on stdin.
fn talk(place: &Place, arguments: &[&str], lines: &str) -> crate::harness::Outcome {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = place
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    crate::harness::Outcome::of(child.wait_with_output().unwrap())
}

#[test]
fn a_conversation_sees_its_turns() {
    let place = Place::new();
    with_tokenizer(&place);
    let flags = [
        "text",
        "--model",
        "model",
        "--gen-length",
        "32",
        "--chat",
        "--json",
    ];
    let turns = |lines: &str| -> Vec<Value> {
        let outcome = talk(&place, &flags, lines);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let documents = outcome.stdout.lines();
        documents
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let found = turns("w5 w6\n\nw7\n/new\nw5 w6\n");
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["prompt_tokens"], 4);
    let said = found[0]["tokens"].as_u64().unwrap();
    let second = found[1]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(
        second,
        4 + (said + 2) + 3,
        "question, answer and question, in two words each"
    );
    assert_eq!(found[2]["text"], found[0]["text"], "/new forgets");
    assert_eq!(turns("w5 w6\n/exit\nw7\n").len(), 1);
    assert!(turns("").is_empty());

    // Turns that leave no room for the answer are forgotten, with a word about it.
    let long = "w9 ".repeat(40);
    let outcome = talk(&place, &flags, &format!("{long}\n{long}\n"));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("128 positions"),
        "{}",
        outcome.stderr
    );
    let outcome = talk(&place, &flags, &"w9 ".repeat(120));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("knows 128"), "{}", outcome.stderr);

    place.fails(
        2,
        &["--chat"],
        &["text", "w1", "--chat", "--model", "model"],
    );
    let settings = place.path("model/tokenizer_config.json");
    std::fs::write(settings, json!({"mask_token": "<|mask|>"}).to_string()).unwrap();
    place.fails(
        1,
        &["chat template"],
        &["text", "--chat", "--model", "model"],
    );
}

#[test]
fn problems_are_evaluated() {
    let place = Place::new();
    with_tokenizer(&place);
    let base = ["eval", "text", "--model", "model", "--gen-length", "32"];
    let run = |extra: &[&str]| -> Value {
        let arguments = [&base[..], &["--count", "3", "--json"], extra].concat();
        place.ok(&arguments).json()
    };
    let found = run(&["--cache", "dual", "--threshold", "0.5"]);
    assert_eq!(found["problems"], 3);
    assert_eq!(found["exact_match"], 0.0, "random weights solve nothing");
    let results = found["results"].as_array().unwrap();
    let sum: u64 = results.iter().map(|r| r["tokens"].as_u64().unwrap()).sum();
    assert_eq!(found["tokens"], sum);
    let texts = |document: &Value| -> Vec<Value> {
        let results = document["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["text"].clone())
            .collect()
    };
    let batched = run(&["--cache", "dual", "--threshold", "0.5", "--batch", "3"]);
    assert_eq!(texts(&batched), texts(&found), "a batch changes nothing");
    let questions = |document: &Value| document["results"][0]["question"].clone();
    assert_ne!(questions(&run(&["--training-split"])), questions(&found));
    let outcome = place.ok(&[&base[..], &["--count", "1", "--show"]].concat());
    assert!(outcome.stdout.contains("How many") && outcome.stdout.contains("tokens a second"));

    let usage = |words: &[&str], extra: &[&str]| {
        place.fails(2, words, &[&base[..], extra].concat());
    };
    usage(&["--count", "0"], &["--count", "0"]);
    usage(&["--batch", "0"], &["--batch", "0"]);
    usage(&["--table"], &["--table"]);
    usage(
        &["--steps", "3 steps", "4 blocks"],
        &["--steps", "3", "--block-length", "8"],
    );
    usage(&["--cache", "all"], &["--cache", "all"]);
    place.fails(
        2,
        &["--gen-length", "256 to generate", "knows 128"],
        &[
            "eval",
            "text",
            "--model",
            "model",
            "--count",
            "1",
            "--gen-length",
            "256",
        ],
    );
}

/// The model that comes with brisk, where this checkout has it.
fn has_box() -> bool {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/llada-arithmetic");
    Path::new(folder).join("model.safetensors").exists()
}

#[test]
fn the_box_solves_problems_alone_and_in_batches() {
    let place = Place::new();
    if !has_box() {
        place.fails(
            1,
            &["no model in the box", "--model"],
            &["text", "a question"],
        );
        return;
    }
    let run = |extra: &[&str]| -> Value {
        let base = ["eval", "text", "--count", "8", "--cache", "dual", "--json"];
        place.ok(&[&base[..], extra].concat()).json()
    };
    let (single, batch) = (run(&[]), run(&["--batch", "8"]));
    assert_eq!(
        single["results"], batch["results"],
        "unequal prompts, token for token"
    );
    assert!(single["exact_match"].as_f64().unwrap() >= 0.5, "{single}");
    assert!(
        single["tokens_per_forward"].as_f64().unwrap() > 2.0,
        "{single}"
    );
    let table = place
        .ok(&["eval", "text", "--table", "--count", "1", "--json"])
        .json();
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 18);
    for row in rows {
        let (tokens, forwards) = (row["tokens"].as_f64(), row["forwards"].as_f64());
        let steps = tokens.unwrap() / forwards.unwrap();
        assert_eq!(row["rule"] == "one token", steps <= 1.0, "{row}");
    }
    let paper = &rows.iter().find(|row| row["paper"].is_object()).unwrap()["paper"];
    assert_eq!(paper["accuracy_percent"], 79.3);
    let inspected = place.ok(&["inspect", "llada-arithmetic"]).stdout;
    assert!(inspected.contains("LLaDA"), "{inspected}");
}

#[test]
fn the_language_model_is_probed() {
    let place = Place::new();
    place.copy(CASE, "model");
    let golden = Golden::open(&format!("{CASE}/golden.safetensors"));
    let ids = golden.get("inputs.input_ids");
    write(&place.path("in.safetensors"), "input_ids", &ids);
    let probe = |input: &str| {
        place.ok(&[
            "probe",
            "--model",
            "model",
            "--component",
            "language_model",
            "--inputs",
            input,
            "--outputs",
            "out.safetensors",
        ]);
        load_tensors(place.path("out.safetensors"))["logits"].clone()
    };
    let logits = probe("in.safetensors");
    assert_close("logits", &logits, &golden.get("outputs.logits"), 1e-4);

    // Padding on either side changes nothing.
    let padding = Tensor::zeros((1, 3), DType::I64).unwrap();
    let ones = Tensor::ones(ids.dims(), DType::I64).unwrap();
    let ids = ids.to_dtype(DType::I64).unwrap();
    let sides = [
        (
            Tensor::cat(&[&padding, &ids], 1),
            Tensor::cat(&[&padding, &ones], 1),
            3,
        ),
        (
            Tensor::cat(&[&ids, &padding], 1),
            Tensor::cat(&[&ones, &padding], 1),
            0,
        ),
    ];
    for (padded, mask, start) in sides {
        let tensors = std::collections::HashMap::from([
            ("input_ids", padded.unwrap()),
            ("attention_mask", mask.unwrap()),
        ]);
        brisk_testkit::save_tensors(place.path("padded.safetensors"), &tensors);
        let found = probe("padded.safetensors");
        assert_eq!(found.dims(), [1, 24, 64]);
        assert_close(
            "padded",
            &found.narrow(1, start, 21).unwrap(),
            &logits,
            1e-6,
        );
    }
}

#[test]
fn every_family_is_inspected() {
    let place = Place::new();
    for (case, family) in [
        ("llada_0", "LLaDA:"),
        ("dream_0", "Dream:"),
        ("sdar_0", "SDAR:"),
        ("llada_moe_0", "LLaDA-MoE:"),
        ("llada2_0", "LLaDA2:"),
    ] {
        place.copy(&format!("language_models/{case}"), case);
        let found: Value =
            serde_json::from_str(&place.ok(&["inspect", case, "--json"]).stdout).unwrap();
        let component = &found["components"][0];
        let facts = component["configuration"].as_str().unwrap();
        assert!(facts.starts_with(family), "{facts}");
        assert_eq!(
            component["expected_parameters"], component["summary"]["parameters"],
            "{case}: parameters counted from the configuration"
        );
    }
}

#[test]
fn quantized_weights_are_kept_in_a_file() {
    let place = Place::new();
    with_tokenizer(&place);
    let ask = |extra: &[&str]| {
        let usual = ["text", "--model", "model", "w3 w4", "--gen-length", "16"];
        place.ok(&[&usual[..], extra].concat()).stdout
    };
    let first = ask(&["--quantize", "4bit", "--quantized-weights", "kept"]);
    assert!(place.path("kept").is_file());
    assert_eq!(
        ask(&["--quantize", "4bit", "--quantized-weights", "kept"]),
        first
    );
    assert_eq!(ask(&["--quantize", "4bit"]), first);
    let usual = [
        "text",
        "--model",
        "model",
        "w3",
        "--quantized-weights",
        "kept",
    ];
    place.fails(2, &["--quantized-weights", "--quantize"], &usual);
    let other = [&usual[..], &["--quantize", "8bit"]].concat();
    place.fails(2, &["kept", "4bit", "8bit"], &other);
    let unknown = ["text", "--model", "model", "w3", "--quantize", "int4"];
    place.fails(2, &["--quantize", "int4", "4bit"], &unknown);
}

#[test]
fn bad_requests_are_refused_by_name() {
    let place = Place::new();
    with_tokenizer(&place);
    let usage = |words: &[&str], extra: &[&str]| {
        place.fails(
            2,
            words,
            &[&["text", "--model", "model"][..], extra].concat(),
        );
    };
    usage(&["no prompt"], &[]);
    usage(&["is empty"], &["  "]);
    usage(&["--gen-length", "128 to generate", "knows 128"], &["w1"]);
    let short = ["w1", "--gen-length", "32"];
    let with = |extra: &[&'static str]| [&short[..], extra].concat();
    usage(
        &["--block-length", "7", "32"],
        &with(&["--block-length", "7"]),
    );
    usage(
        &["--steps", "3 steps", "4 blocks"],
        &with(&["--steps", "3", "--block-length", "8"]),
    );
    usage(
        &["--algorithm", "greedy", "low_confidence"],
        &with(&["--algorithm", "greedy"]),
    );
    usage(&["--cache", "all"], &with(&["--cache", "all"]));
    usage(
        &["--threshold and --factor"],
        &with(&["--threshold", "0.9", "--factor", "1"]),
    );
    usage(&["--top-p", "LLaDA"], &with(&["--top-p", "0.9"]));
    usage(
        &["mask", "--infill"],
        &["w1 <|mask|>", "--raw", "--gen-length", "32"],
    );

    // A tokenizer of another model.
    let path = place.path("model/tokenizer.json");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("\"w61\":61", "\"w61\":61,\"w64\":64")).unwrap();
    place.fails(
        1,
        &["ids up to 64", "64 rows"],
        &[&["text", "--model", "model"][..], &short].concat(),
    );
    std::fs::write(&path, &good).unwrap();
    let settings = place.path("model/tokenizer_config.json");
    std::fs::write(settings, json!({"mask_token": "<|end|>"}).to_string()).unwrap();
    place.fails(
        1,
        &["mask is token 63", "is 62"],
        &[&["text", "--model", "model"][..], &short].concat(),
    );
}
