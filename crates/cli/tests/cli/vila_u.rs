//! A model that reads and writes pictures, through the verbs.

use brisk_testkit::{Golden, load_tensors, save_tensors, values};

use crate::harness::{Place, fixture};

fn model() -> String {
    fixture("vila_u/base")
}

#[test]
fn it_draws_from_a_prompt_from_codes_and_from_a_picture() {
    let (place, model) = (Place::new(), model());
    let image = ["image", "--model", &model];
    let heart = [
        "a red heart",
        "--greedy",
        "--save-codes",
        "codes.safetensors",
        "-o",
        "heart.png",
    ];
    let json = place.ok(&[&image[..], &heart, &["--json"]].concat()).json();
    assert_eq!(json["steps"], 16);
    assert_eq!(json["settings"]["guidance"], 3.0);
    let golden = Golden::open("vila_u/base/golden_generate.safetensors");
    let wanted = golden.get("outputs.codes").narrow(0, 0, 1).unwrap();
    let codes = &load_tensors(place.path("codes.safetensors"))["codes"];
    assert_eq!(codes.dims(), wanted.dims());
    assert_eq!(values(codes), values(&wanted));

    place.ok(&[
        &image[..],
        &["--codes", "codes.safetensors", "x", "-o", "again.png"],
    ]
    .concat());
    place.ok(&["image", "--from", "heart.png", "-o", "from.png"]);
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert!(read("heart.png") == read("again.png"));
    assert!(read("heart.png") == read("from.png"));

    place.ok(&[&image[..], &["--reconstruct", "heart.png", "-o", "rec.png"]].concat());
    assert_eq!((read("rec.png").width, read("rec.png").height), (32, 32));
    place.fails(
        2,
        &["--reconstruct", "leave the prompt out"],
        &[
            &image[..],
            &["a heart", "--reconstruct", "heart.png", "-o", "no.png"],
        ]
        .concat(),
    );
    place.fails(2, &["what should the picture show"], &image);
    assert!(!place.path("no.png").exists());
}

#[test]
fn it_answers_about_pictures_and_without() {
    let (place, model) = (Place::new(), model());
    let image = [
        "image", "--model", &model, "a house", "--greedy", "-o", "a.png",
    ];
    place.ok(&image);
    let text = [
        "text",
        "--model",
        &model,
        "--gen-length",
        "5",
        "--temperature",
        "0",
        "--json",
    ];
    let ask = |more: &[&str]| {
        let json = place.ok(&[&text[..], more].concat()).json();
        json["answers"][0]["ids"].to_string()
    };
    let seen = ask(&["--picture", "a.png", "what is this?"]);
    assert_eq!(seen, ask(&["--picture", "a.png", "<image>\nwhat is this?"]));
    assert_ne!(seen, ask(&["what is this?"]));
    let golden = Golden::open("vila_u/base/golden_answers.safetensors");
    let wanted: Vec<u32> = values(&golden.get("outputs.text"))[..5]
        .iter()
        .map(|id| *id as u32)
        .collect();
    assert_eq!(
        ask(&["what is this?"]),
        serde_json::json!(wanted).to_string()
    );
    let two = [
        "--picture",
        "a.png",
        "--picture",
        "a.png",
        "is <image> red?",
    ];
    place.fails(
        2,
        &["--picture", "2 pictures", "1 place"],
        &[&text[..], &two].concat(),
    );
    // Token ids in and out, without a tokenizer.
    let prompt = brisk_nn::Tensor::new(vec![1i64, 259, 264]).unwrap();
    let prompt = prompt.unsqueeze(0).unwrap();
    let named = [("input_ids", prompt)].into_iter().collect();
    save_tensors(place.path("ids.safetensors"), &named);
    place.ok(&[
        &text[..],
        &[
            "--input-ids",
            "ids.safetensors",
            "--output-ids",
            "out.safetensors",
        ],
    ]
    .concat());
    let out = load_tensors(place.path("out.safetensors"));
    assert_eq!(out["output_ids"].dims(), [1, 8]);
}

#[test]
fn it_is_inspected_and_shown_in_its_parts() {
    let (place, model) = (Place::new(), model());
    let shown = place.ok(&["inspect", &model]).stdout;
    for word in ["VILA-U", "llm", "vision_tower", "mm_projector", "complete"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let shown = place.ok(&["models", "show", &model]).stdout;
    for word in [
        "brisk image",
        "brisk text",
        "--guidance",
        "--picture",
        "32 × 32",
        "1200 tokens",
    ] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let json = place.ok(&["models", "show", &model, "--json"]).json();
    assert_eq!(
        (&json["gives"], &json["also"]["gives"]),
        (&"pictures".into(), &"text".into())
    );
}

#[test]
fn its_paper_is_measured_on_what_a_model_brings_along() {
    let place = Place::new();
    let paper = ["reproduce", "vila-u", "--model"];
    place.fails(
        1,
        &["held_out.json", "held-out pictures"],
        &[&paper[..], &[&model()]].concat(),
    );
    place.copy("vila_u/base", "model");
    let exam = serde_json::json!({"size": 32, "pictures": [{"caption": "a cat", "questions": [
        {"kind": "object", "question": "what is this?", "answer": "cat"}
    ]}]});
    std::fs::write(place.path("model/held_out.json"), exam.to_string()).unwrap();
    let sheet = |height: usize| {
        let picture = brisk_media::Picture {
            width: 320,
            height,
            pixels: vec![200; 320 * height * 3],
        };
        let png = brisk_media::encode_png(&picture, &[]).unwrap();
        std::fs::write(place.path("model/held_out.png"), png).unwrap();
    };
    sheet(64);
    let words = ["320×64 pixels", "1 pictures of 32"];
    place.fails(1, &words, &[&paper[..], &["model"]].concat());
    // A model of random weights shows no effect, but everything is measured.
    sheet(32);
    let outcome = place.run(&[&paper[..], &["model"]].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    for word in [
        "from 1 of ",
        "answers right",
        "guidance 3",
        "does not appear",
    ] {
        assert!(outcome.stdout.contains(word), "{word}: {}", outcome.stdout);
    }
}
