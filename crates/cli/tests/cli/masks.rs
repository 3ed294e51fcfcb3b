//! Masks of a picture, through the verbs.

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture, encode_png, read_picture};

use crate::harness::{Place, fixture};

/// A place with a picture.
fn place() -> Place {
    let place = Place::new();
    let pixels = (0..90 * 70 * 3)
        .map(|at| (at * at / 53 % 256) as u8)
        .collect();
    let picture = Picture::new(90, 70, pixels).unwrap();
    std::fs::write(place.path("photo.png"), encode_png(&picture, &[]).unwrap()).unwrap();
    place
}

fn mask(place: &Place, name: &str) -> Mask {
    Mask::from_picture(&read_picture(&place.path(name)).unwrap()).unwrap()
}

#[test]
fn points_and_boxes_become_masks_in_a_folder() {
    let (place, model) = (place(), fixture("sam/base"));
    let masks = ["masks", "photo.png", "--model", &model];
    std::fs::write(
        place.path("boxes.json"),
        r#"[{"name": "A", "box": [5, 5, 60, 40]}, [40, 30, 90, 70]]"#,
    )
    .unwrap();
    let given = [
        "--boxes",
        "boxes.json",
        "--json",
        "--save-embedding",
        "seen.safetensors",
    ];
    let summary = place.ok(&[&masks[..], &given].concat()).json();
    assert_eq!(summary["masks"][0]["name"], "A");
    assert_eq!(summary["prompts"][1]["box"][2], 90.0);
    assert_eq!(summary["folder"], "photo-masks");
    let mut names: Vec<String> = std::fs::read_dir(place.path("photo-masks"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "coco.json",
        "mask-0000.png",
        "mask-0001.png",
        "overlay.png",
        "summary.json",
    ];
    assert_eq!(names, expected);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(place.path(name)).unwrap()).unwrap()
    };
    assert_eq!(read("photo-masks/summary.json"), summary);
    let coco = read("photo-masks/coco.json");
    for (index, annotation) in coco["annotations"].as_array().unwrap().iter().enumerate() {
        let runs = annotation["segmentation"]["counts"].as_str().unwrap();
        let runs = Runs::from_text(90, 70, runs).unwrap();
        let drawn = mask(&place, &format!("photo-masks/mask-{index:04}.png"));
        assert_eq!(Mask::from(&runs), drawn);
        assert_eq!(annotation["area"], drawn.area());
    }
    assert_eq!(coco["categories"][0]["name"], "A");

    // What the encoder saw serves again; a second run has a folder of its own.
    let again = ["--embedding", "seen.safetensors", "--box", "5,5,60,40"];
    let listed = place.ok(&[&masks[..], &again].concat()).stdout;
    assert!(listed.contains("photo-masks-1/mask-0000.png"), "{listed}");
    assert_eq!(
        mask(&place, "photo-masks-1/mask-0000.png"),
        mask(&place, "photo-masks/mask-0000.png")
    );
    let other = [
        "--embedding",
        "seen.safetensors",
        "--point",
        "1,1",
        "-o",
        "no",
    ];
    place.fails(
        1,
        &["--embedding", "another picture"],
        &[
            &["masks", "photo-masks/overlay.png", "--model", &model][..],
            &other,
        ]
        .concat(),
    );
}

#[test]
fn everything_is_found() {
    let (place, model) = (place(), fixture("sam/base"));
    let given = [
        "--everything",
        "--points-per-side",
        "3",
        "--pred-iou-thresh",
        "0",
    ];
    let json = place
        .ok(&[
            &["masks", "photo.png", "--model", &model, "--json"][..],
            &given,
        ]
        .concat())
        .json();
    assert_eq!(json["settings"]["points_per_side"], 3);
    let found = json["masks"].as_array().unwrap();
    assert!(
        found
            .iter()
            .all(|mask| mask["stability_score"].as_f64().unwrap() >= 0.95)
    );
}

#[test]
fn what_cannot_be_is_said_before_anything_is_written() {
    let (place, model) = (place(), fixture("sam/base"));
    let with = |more: &[&'static str]| -> Vec<String> {
        let given = ["masks", "photo.png", "--model", &model];
        given
            .iter()
            .chain(more)
            .map(|part| (*part).to_owned())
            .collect()
    };
    std::fs::create_dir(place.path("full")).unwrap();
    std::fs::write(place.path("full/x"), "x").unwrap();
    for (code, words, more) in [
        (2, &["--point", "--everything"][..], &[][..]),
        (2, &["--output", "full"], &["--point", "1,1", "-o", "full"]),
        (
            2,
            &["--output", "photo.png"],
            &["--point", "1,1", "-o", "photo.png/x"],
        ),
        (
            2,
            &["--save-embedding", "safetensors"],
            &["--point", "1,1", "--save-embedding", "x.png"],
        ),
        (2, &["--point", "\"a,1\""], &["--point", "a,1"]),
        (1, &["--boxes", "nowhere"], &["--boxes", "nowhere.json"]),
    ] {
        let given = with(more);
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        if words.contains(&"photo.png") {
            let outcome = place.run(&given);
            assert_ne!(outcome.code, Some(0), "{}", outcome.stderr);
            continue;
        }
        place.fails(code, words, &given);
    }
    // Weights without a configuration, of a size that the authors did not publish; and no model of masks at all.
    let bare = fixture("sam/authors/sam_vit_tiny.pth");
    std::fs::copy(bare, place.path("sam.pth")).unwrap();
    let point = ["masks", "photo.png", "--point", "1,1", "--model"];
    place.fails(
        1,
        &["sam.pth", "width 32", "ViT-B (768, 12)"],
        &[&point[..], &["sam.pth"]].concat(),
    );
    place.fails(
        2,
        &["not masks", "brisk image"],
        &[&point[..], &["sana-emoji"]].concat(),
    );
    let shown = place.ok(&["models", "show", &model]).stdout;
    assert!(
        shown.contains("brisk masks") && shown.contains("--negative-point"),
        "{shown}"
    );
}

/// The fast image encoders, from a file alone or a folder with nothing else.
#[test]
fn fast_encoders_run_from_their_authors_files() {
    let place = place();
    for (case, file, kind) in [
        ("mobile", "mobile_sam.pt", "TinyViT"),
        ("efficientvit_l", "efficientvit_sam_l.pt", "EfficientViT"),
        ("efficientvit_xl", "efficientvit_sam_xl.pt", "EfficientViT"),
    ] {
        let folder = fixture(&format!("sam/{case}"));
        let path = format!("{folder}/{file}");
        let find = |model: &str, out: &str| {
            let given = ["masks", "photo.png", "--model", model, "--point", "40,30"];
            place
                .ok(&[&given[..], &["-o", out, "--json"]].concat())
                .json()
        };
        let (of_file, of_folder) = (format!("{case}-file"), format!("{case}-folder"));
        let summary = find(&path, &of_file);
        assert!(
            summary["masks"][0]["predicted_iou"].is_number(),
            "{summary}"
        );
        find(&folder, &of_folder);
        let found = [of_file, of_folder].map(|out| mask(&place, &format!("{out}/mask-0000.png")));
        assert_eq!(found[0], found[1]);
        assert_eq!([found[0].width(), found[0].height()], [90, 70]);
        let shown = place.ok(&["inspect", &path]).stdout;
        assert!(
            shown.contains("Segment Anything") && shown.contains(kind),
            "{shown}"
        );
    }
    // Beside a configuration of another encoder.
    let (config, weights) = (
        fixture("sam/authors/config.json"),
        fixture("sam/mobile/mobile_sam.pt"),
    );
    std::fs::create_dir(place.path("other")).unwrap();
    std::fs::copy(config, place.path("other/config.json")).unwrap();
    std::fs::copy(weights, place.path("other/mobile_sam.pt")).unwrap();
    place.fails(
        1,
        &["vision_encoder.pos_embed"],
        &["masks", "photo.png", "--model", "other", "--point", "1,1"],
    );
}

/// Every file of a folder with its bytes, but locks.
fn all_files(folder: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                left.push(path);
            } else if !name.starts_with('.') {
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn words_of_a_folder_are_found_and_a_run_goes_on() {
    let (place, model) = (place(), fixture("sam/base"));
    std::fs::create_dir(place.path("photos")).unwrap();
    let mut lines = String::new();
    for name in ["a.png", "b.png", "c.png"] {
        std::fs::copy(
            place.path("photo.png"),
            place.path(&format!("photos/{name}")),
        )
        .unwrap();
        lines += &format!(
            "{{\"picture\": \"{name}\", \"words\": [{{\"box\": [4, 4, 84, 40], \"text\": \"Bo\"}}]}}\n"
        );
    }
    std::fs::write(place.path("words.jsonl"), &lines).unwrap();
    let run = [
        "masks",
        "photos",
        "--model",
        &model,
        "--words",
        "words.jsonl",
        "-o",
        "out",
    ];
    let summary = place.ok(&[&run[..], &["--json"]].concat()).json();
    assert_eq!(
        (&summary["done"], &summary["before"]),
        (&3.into(), &0.into())
    );
    let whole = all_files(&place.path("out"));
    for name in [
        "b/text.png",
        "b/overlay.png",
        "b/coco.json",
        "b/summary.json",
        "request.json",
        "summary.json",
    ] {
        assert!(whole.contains_key(name), "no {name} in {:?}", whole.keys());
    }
    // As a run leaves it that was killed in the midst of the second picture.
    std::fs::remove_dir_all(place.path("out/b")).unwrap();
    std::fs::create_dir(place.path("out/.b.999999-0.tmp")).unwrap();
    std::fs::remove_file(place.path("out/summary.json")).unwrap();
    let summary = place.ok(&[&run[..], &["--json"]].concat()).json();
    assert_eq!(
        (&summary["done"], &summary["before"]),
        (&1.into(), &2.into())
    );
    assert_eq!(all_files(&place.path("out")), whole);
    place.fails(
        2,
        &["output", "another request"],
        &[&run[..], &["--prompt", "word"]].concat(),
    );
    // A picture that is none does not keep the others from being done.
    std::fs::write(place.path("photos/d.png"), "no picture").unwrap();
    let outcome = place.run(&[&run[..6], &["-o", "other"]].concat());
    assert_eq!(outcome.code, Some(1));
    for word in ["1 pictures failed", "d.png"] {
        assert!(
            outcome.stderr.contains(word),
            "no {word:?} in {}",
            outcome.stderr
        );
    }
    assert!(place.path("other/c/text.png").is_file());
    place.fails(2, &["--words"], &["masks", "photos", "--model", &model]);
}

#[test]
fn a_pictures_words_stand_in_its_summary() {
    let (place, model) = (place(), fixture("sam/base"));
    std::fs::write(
        place.path("photo.json"),
        r#"[{"box": [4, 4, 84, 40], "text": "Bo"}, [200, 4, 240, 20]]"#,
    )
    .unwrap();
    let run = [
        "masks",
        "photo.png",
        "--model",
        &model,
        "--words",
        "photo.json",
        "--json",
    ];
    let summary = place.ok(&run).json();
    assert_eq!(summary["words"][0]["text"], "Bo");
    assert_eq!(summary["words"][0]["characters"][1]["class"], "o");
    assert_eq!(summary["words"][1]["flags"][0], "outside of the picture");
    assert_eq!(summary["settings"]["prompt"], "cbr+cgr");
    let text = mask(&place, "photo-masks/text.png");
    assert_eq!(
        text.area(),
        summary["words"][0]["area"].as_u64().unwrap() as usize
    );
    place.fails(
        2,
        &["--words", "--detector"],
        &["masks", "photo.png", "--model", &model, "--words", "auto"],
    );
}
