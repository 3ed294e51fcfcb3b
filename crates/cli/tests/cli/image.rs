//! What `brisk image` writes.

use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::harness::{Outcome, Place, fixture, gradient};

const SMALL: [&str; 5] = ["--size", "64", "--steps", "2", "--no-binning"];

fn draw(place: &Place, extra: &[&str]) -> Outcome {
    let model = fixture("pipelines/sana");
    place.ok(&[
        &["image", "a red fox", "--model", &model][..],
        &SMALL,
        extra,
    ]
    .concat())
}

#[test]
fn several_pictures_are_numbered_and_reproducible() {
    let place = Place::new();
    let outcome = draw(
        &place,
        &[
            "--prompt",
            "a blue owl",
            "--images",
            "2",
            "--instruction",
            "none",
            "-o",
            "many.png",
        ],
    );
    assert_eq!(
        outcome.stdout,
        "many-0.png\nmany-1.png\nmany-2.png\nmany-3.png\n"
    );
    assert!(
        outcome.stderr.contains("denoise"),
        "progress lines: {}",
        outcome.stderr
    );
    assert!(
        !outcome.stderr.contains('\r') && !outcome.stderr.contains('\u{1b}'),
        "no bar without a terminal"
    );
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_ne!(read("many-0.png"), read("many-1.png"));
    let first = read("many-2.png");
    draw(
        &place,
        &[
            "--prompt",
            "a blue owl",
            "--images",
            "2",
            "--instruction",
            "none",
            "-o",
            "many.png",
        ],
    );
    assert_eq!(
        read("many-2.png"),
        first,
        "the same command gives the same file"
    );
    assert_eq!(place.files().len(), 4);
}

#[test]
fn seconds_of_stages_add_up_to_no_more_than_the_whole() {
    let options = ["--images", "3", "-o", "fox.png", "--json"];
    let json = draw(&Place::new(), &options).json();
    let stages = json["stages_seconds"].as_object().unwrap();
    let seconds = |stage: &str| stages[stage].as_f64().unwrap();
    assert!(
        ["text", "denoise", "decode"]
            .iter()
            .all(|stage| seconds(stage) > 0.0)
    );
    let sum: f64 = stages.keys().map(|stage| seconds(stage)).sum();
    assert!(sum <= json["seconds"].as_f64().unwrap(), "{json}");
}

#[test]
fn a_picture_tells_how_it_was_made() {
    let place = Place::new();
    let outcome = draw(
        &place,
        &[
            "--seed",
            "7",
            "--negative-prompt",
            "rain ☂",
            "-o",
            "fox.png",
            "--json",
        ],
    );
    let json = outcome.json();
    assert_eq!(json["images"][0]["path"], "fox.png");
    assert_eq!(json["images"][0]["width"], 64);
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    let request = place.ok(&["inspect", "fox.png", "--json"]).json();
    assert_eq!(
        (&request["width"], &request["height"]),
        (&64.into(), &64.into())
    );
    let made = &request["request"];
    assert_eq!(made["prompt"], "a red fox");
    assert_eq!(made["negative_prompt"], "rain ☂");
    assert_eq!(made["seed"], 7);
    assert_eq!(made["steps"], 2);
    assert_eq!(made["guidance"], 4.5);
    assert_eq!(made["scheduler"], "dpm");
    assert_eq!(made["version"], env!("CARGO_PKG_VERSION"));
    assert!(made["model"].as_str().unwrap().contains("pipelines/sana"));
    let people = request["texts"]["parameters"].as_str().unwrap();
    assert!(
        people.contains("Negative prompt: rain ☂") && people.contains("Seed: 7"),
        "{people}"
    );
    let text = place.ok(&["inspect", "fox.png"]).stdout;
    assert!(
        text.contains("prompt: a red fox") && text.contains("64 x 64"),
        "{text}"
    );
}

#[test]
fn native_checkpoints_draw_with_parts_of_a_folder() {
    let place = Place::new();
    let (file, folder) = (
        fixture("native/t1_base/model.pth"),
        fixture("pipelines/sana"),
    );
    place.fails(
        2,
        &["--transformer", "--vae", "--text-encoder"],
        &["image", "x", "--transformer", &file],
    );
    let parts = [
        "image",
        "a red fox",
        "--transformer",
        &file,
        "--vae",
        &folder,
        "--text-encoder",
        &folder,
    ];
    place.fails(1, &["heads"], &parts);
    let own = [
        &parts[..],
        &["--heads", "3,2", "--size", "64", "--steps", "2"],
    ]
    .concat();
    place.ok(&[&own[..], &["-o", "diffusers.png"]].concat());
    place.ok(&[&own[..], &["-o", "native.png", "--native"]].concat());
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert_ne!(
        read("diffusers.png"),
        read("native.png"),
        "the authors' time grid is another"
    );
    let made = place.ok(&["inspect", "native.png", "--json"]).json();
    assert_eq!(made["request"]["scheduler"], "dpm-native");
    assert_eq!(made["request"]["transformer"], file);
    let wrong = fixture("dcae/a/original.safetensors");
    place.fails(
        1,
        &["original.safetensors", "DC-AE"],
        &[
            "image",
            "x",
            "--transformer",
            &wrong,
            "--vae",
            &folder,
            "--text-encoder",
            &folder,
        ],
    );
}

#[test]
fn a_sheet_shows_all_pictures() {
    let place = Place::new();
    draw(
        &place,
        &["--images", "3", "-o", "x.png", "--sheet", "sheet.png"],
    );
    let sheet = brisk_media::read_picture(&place.path("sheet.png")).unwrap();
    assert!(
        sheet.width > 3 * 64 && sheet.height > 64,
        "{} x {}",
        sheet.width,
        sheet.height
    );
}

#[test]
fn previews_are_written_on_the_way() {
    let place = Place::new();
    std::fs::create_dir(place.path("steps")).unwrap();
    draw(&place, &["--preview", "steps", "-o", "last.png"]);
    // The last step's picture is the result itself.
    assert_eq!(
        place.files(),
        [place.path("last.png"), place.path("steps/step-0001.png")]
    );
    let last = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert_eq!(
        last("steps/step-0001.png").pixels.len(),
        last("last.png").pixels.len()
    );
}

#[test]
fn a_long_prompt_is_cut_with_a_warning() {
    let place = Place::new();
    let prompt = "red fox ".repeat(12_500); // 100 kB
    let model = fixture("pipelines/sana");
    let outcome = place.ok(&[&["image", &prompt, "--model", &model][..], &SMALL].concat());
    assert!(
        outcome.stderr.contains("longer than 300 tokens"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stdout, "brisk.png\n");
}

#[test]
fn pictures_to_start_from_change_the_result() {
    let place = Place::new();
    std::fs::write(place.path("start.png"), gradient(50, 70, 0)).unwrap();
    draw(&place, &["-o", "plain.png"]);
    draw(
        &place,
        &[
            "-o",
            "started.png",
            "--init-image",
            "start.png",
            "--strength",
            "0.5",
        ],
    );
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert_ne!(read("plain.png"), read("started.png"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_cleanly() {
    let place = Place::new();
    let model = fixture("pipelines/sana");
    let arguments = [
        "image",
        "a red fox",
        "--model",
        &model,
        "--size",
        "512",
        "--no-binning",
        "--steps",
        "1000",
    ];
    let mut child = place
        .command(&arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Drawing has begun when the first line about it is there.
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("denoise")));
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.collect();
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("cancelled")),
        "{rest:?}"
    );
    assert_eq!(outcome.stdout, "");
    assert!(place.files().is_empty());
}

#[test]
fn without_a_model_the_box_draws_or_says_that_it_is_empty() {
    let place = Place::new();
    let box_folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/sana-emoji/model_index.json");
    if box_folder.exists() {
        let outcome = place.ok(&["image", "a red heart", "-o", "heart.png", "--steps", "2"]);
        assert_eq!(outcome.stdout, "heart.png\n");
        assert!(
            place
                .ok(&["inspect", "sana-emoji"])
                .stdout
                .contains("complete")
        );
    } else {
        place.fails(
            1,
            &["no model in the box", "--model"],
            &["image", "a red heart"],
        );
        place.fails(1, &["no model in the box"], &["inspect", "sana-emoji"]);
    }
}

/// Draws at a small size with the fixture's model.
fn small(extra: &[&str]) -> Vec<String> {
    let model = fixture("pipelines/sana");
    let usual = [
        "image",
        "--model",
        &model,
        "--size",
        "64",
        "--no-binning",
        "--steps",
        "2",
    ];
    usual
        .iter()
        .chain(extra)
        .map(|word| (*word).to_owned())
        .collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn a_picture_goes_to_stdout() {
    let place = Place::new();
    let arguments = small(&["a red fox", "-o", "-"]);
    let output = place.command(&words(&arguments)).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"\x89PNG"));
    assert!(place.files().is_empty());
    let two = small(&["a", "b", "-o", "-"]);
    place.fails(2, &["--output", "one picture"], &words(&two));
}

#[test]
fn default_names_overwrite_nothing() {
    let place = Place::new();
    let arguments = small(&["a red fox"]);
    for name in ["brisk.png\n", "brisk-1.png\n", "brisk-2.png\n"] {
        assert_eq!(place.ok(&words(&arguments)).stdout, name);
    }
}

#[test]
fn prompts_come_from_a_file() {
    let place = Place::new();
    std::fs::write(
        place.path("list.txt"),
        "\u{feff}a red fox\r\n\r\na blue hat\n",
    )
    .unwrap();
    let arguments = small(&["--prompts", "list.txt", "-o", "x.png", "--json"]);
    let drawn = place.ok(&words(&arguments)).json();
    assert_eq!(drawn["images"][0]["prompt"], "a red fox");
    assert_eq!(drawn["images"][1]["prompt"], "a blue hat");
    place.fails(
        2,
        &["--prompts", "one of both"],
        &["image", "a fox", "--prompts", "list.txt"],
    );
}

#[test]
fn a_picture_is_drawn_again_from_its_description() {
    let place = Place::new();
    let arguments = small(&[
        "a red fox",
        "--images",
        "2",
        "--seed",
        "9",
        "--guidance",
        "2.5",
        "-o",
        "x.png",
    ]);
    place.ok(&words(&arguments));
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    place.ok(&["image", "--from", "x-1.png", "-o", "again.png"]);
    assert_eq!(read("again.png"), read("x-1.png"));
    place.ok(&[
        "image",
        "--from",
        "x-1.png",
        "--seed",
        "11",
        "-o",
        "other.png",
    ]);
    assert_ne!(read("other.png"), read("x-1.png"));
    let plain = brisk_media::encode_png(&read("x-0.png"), &[]).unwrap();
    std::fs::write(place.path("plain.png"), plain).unwrap();
    place.fails(
        1,
        &["plain.png", "how it was drawn"],
        &["image", "--from", "plain.png"],
    );
}

#[test]
fn a_seed_may_be_drawn() {
    let place = Place::new();
    for seed in ["random", "-1"] {
        let arguments = small(&["a red fox", "--seed", seed, "-o", "x.png", "--json"]);
        let outcome = place.ok(&words(&arguments));
        let drawn = outcome.json()["images"][0]["seed"].as_u64().unwrap();
        assert!(
            outcome.stderr.contains(&format!("seed {drawn}")),
            "{}",
            outcome.stderr
        );
    }
    place.fails(2, &["--seed", "2^64"], &["image", "a fox", "--seed", "-2"]);
}

#[test]
fn strips_draw_the_whole_picture() {
    let place = Place::new();
    let mut pictures = Vec::new();
    for mode in ["strips", "whole"] {
        let name = format!("{mode}.png");
        let arguments = "image heart --exact --size 512 --no-binning --steps 1 --seed 1 --decode";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        place.ok(&[&arguments[..], &[mode, "-o", &name]].concat());
        pictures.push(brisk_media::read_picture(&place.path(&name)).unwrap());
    }
    assert_eq!(pictures[0], pictures[1]);
}
