//! `brisk image --best-of`.

use serde_json::Value;

use crate::harness::{Place, fixture};

fn read(place: &Place, name: &str) -> brisk_media::Picture {
    brisk_media::read_picture(&place.path(name)).unwrap()
}

/// Seeds of the pictures that stay, as the document says.
fn kept(document: &Value) -> Vec<u64> {
    let kept = document["prompts"][0]["kept"].as_array().unwrap();
    kept.iter()
        .map(|one| one["seed"].as_u64().unwrap())
        .collect()
}

/// Seeds from the best on, of equals the later first.
fn ranked(document: &Value) -> Vec<u64> {
    let mut all = document["prompts"][0]["candidates"]
        .as_array()
        .unwrap()
        .clone();
    all.sort_by(|a, b| {
        let key = |one: &Value| {
            let (yes, score) = (
                one["yes"].as_bool().unwrap(),
                one["score"].as_f64().unwrap(),
            );
            (
                yes,
                if yes { score } else { -score },
                one["seed"].as_u64().unwrap(),
            )
        };
        key(b).partial_cmp(&key(a)).unwrap()
    });
    all.iter()
        .map(|one| one["seed"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_best_stay_and_a_folder_of_candidates_goes_on() {
    let place = Place::new();
    let model = fixture("pipelines/sana");
    let base = [
        "image", "a cat", "--model", &model, "--steps", "2", "--seed", "7",
    ];
    let many = [&base[..], &["--best-of", "6", "--at-once", "4"]].concat();
    let all = [&many[..], &["--keep", "2", "--candidates", "all", "--json"]].concat();
    let first = place
        .ok(&[&all[..], &["-o", "best.png", "--sheet", "sheet.png"]].concat())
        .json();
    assert_eq!(first["judge"], "scene-checker");
    assert_eq!(kept(&first), ranked(&first)[..2]);
    assert_eq!(first["prompts"][0]["found_in_folder"], 0);
    let path = first["prompts"][0]["kept"][0]["path"].as_str().unwrap();
    assert!(place.path("sheet.png").exists());
    // It says how it was drawn, and is drawn again alone.
    let seed = kept(&first)[0].to_string();
    place.ok(&["image", "--from", path, "-o", "again.png"]);
    place.ok(&[&base[..6], &["--seed", &seed, "-o", "alone.png"]].concat());
    assert!(read(&place, path) == read(&place, "again.png"));
    assert!(read(&place, path) == read(&place, "alone.png"));

    // A run that was killed: one picture without its judgement, half a line, one not drawn.
    let lines = std::fs::read_to_string(place.path("all/judgements.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 6);
    let whole: Vec<&str> = lines.lines().take(4).collect();
    let half = &lines.lines().nth(4).unwrap()[..20];
    std::fs::write(
        place.path("all/judgements.jsonl"),
        format!("{}\n{half}", whole.join("\n")),
    )
    .unwrap();
    std::fs::remove_file(place.path("all/12.png")).unwrap();
    let again = place.ok(&[&all[..], &["-o", "again.png"]].concat()).json();
    assert_eq!(
        again["prompts"][0]["candidates"],
        first["prompts"][0]["candidates"]
    );
    assert_eq!(again["prompts"][0]["found_in_folder"], 4);
    let third = place.ok(&[&all[..], &["-o", "third.png"]].concat()).json();
    assert_eq!(third["prompts"][0]["found_in_folder"], 6);
    assert!(
        read(
            &place,
            third["prompts"][0]["kept"][0]["path"].as_str().unwrap()
        ) == read(&place, path)
    );
    let other = [&all[..], &["--guidance", "2", "-o", "x.png"]].concat();
    place.fails(1, &["all/7.png", "another request"], &other);

    // By pairs: 4 of 6 take part, the winner of each half stays.
    let pairs = [
        &many[..],
        &[
            "--keep", "3", "--select", "bracket", "--json", "-o", "pair.png",
        ],
    ]
    .concat();
    let pairs = place.ok(&pairs).json();
    assert_eq!(
        pairs["prompts"][0]["candidates"].as_array().unwrap().len(),
        4
    );
    let ranked = ranked(&pairs);
    let of_half =
        |half: std::ops::Range<u64>| *ranked.iter().find(|seed| half.contains(seed)).unwrap();
    assert_eq!(kept(&pairs), [of_half(7..9), of_half(9..11)]);
}

#[test]
fn a_model_that_reads_pictures_judges_by_its_scores() {
    let place = Place::new();
    let (model, judge) = (fixture("pipelines/sana"), fixture("vila_u/base"));
    let base = [
        "image",
        "something new",
        "--model",
        &model,
        "--steps",
        "2",
        "--best-of",
        "3",
    ];
    let asked = [&base[..], &["--judge", &judge, "--json"]].concat();
    let plain = place.ok(&[&asked[..], &["-o", "a.png"]].concat()).json();
    assert_eq!(kept(&plain), ranked(&plain)[..1]);
    let scores = |document: &Value| -> Vec<f64> {
        let all = document["prompts"][0]["candidates"].as_array().unwrap();
        all.iter()
            .map(|one| one["score"].as_f64().unwrap())
            .collect()
    };
    let said = &plain["prompts"][0]["candidates"][0]["said"];
    assert!(said.as_str().unwrap().starts_with("yes "), "{said}");
    assert!(
        scores(&plain).windows(2).any(|pair| pair[0] != pair[1]),
        "{plain}"
    );
    std::fs::write(place.path("q.txt"), "Is this {prompt}?").unwrap();
    let other = [&asked[..], &["--judge-template", "q.txt", "-o", "b.png"]].concat();
    assert_ne!(scores(&place.ok(&other).json()), scores(&plain));
    std::fs::write(place.path("q.txt"), "Is this it?").unwrap();
    place.fails(2, &["judge-template", "{prompt}"], &other);
}

#[test]
fn what_cannot_be_judged_is_refused_before_anything_is_drawn() {
    let place = Place::new();
    let model = fixture("pipelines/sana");
    let image = |prompt: &'static str, more: &[&'static str]| {
        let base = ["image", prompt, "-o", "x.png", "--best-of", "2"];
        let mut all = base.map(str::to_owned).to_vec();
        all.extend(["--model".to_owned(), model.clone()]);
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all
    };
    for (code, words, arguments) in [
        (
            2,
            vec!["a dragon", "words of scenes"],
            image("a dragon", &[]),
        ),
        (
            2,
            vec!["--images", "leave it out"],
            image("a cat", &["--images", "3"]),
        ),
        (
            2,
            vec!["--save-latents"],
            image("a cat", &["--save-latents", "l.safetensors"]),
        ),
        (
            2,
            vec!["--best-of", "their own seeds"],
            image("a cat", &["--one-generator"]),
        ),
        (
            1,
            vec!["--judge", "no-such"],
            image("a cat", &["--judge", "no-such"]),
        ),
        (
            2,
            vec!["sana-emoji"],
            image("a cat", &["--judge", "sana-emoji"]),
        ),
        (
            1,
            vec!["does not answer questions"],
            image("a cat", &["--judge", "llada-arithmetic"]),
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        place.fails(code, &words, &arguments);
    }
    place.fails(2, &["--best-of"], &["image", "a cat", "--keep", "2"]);
}
