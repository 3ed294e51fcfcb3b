//! `brisk grow` and `brisk prune`.

use crate::harness::{Place, fixture};

fn pixels(place: &Place, model: &str) -> Vec<u8> {
    let draw = [
        "image",
        "a cat",
        "--model",
        model,
        "--steps",
        "2",
        "-o",
        "drawn.png",
    ];
    place.ok(&draw);
    brisk_media::read_picture(&place.path("drawn.png"))
        .unwrap()
        .pixels
}

#[test]
fn a_model_is_grown_and_pruned_back() {
    let place = Place::new();
    let source = fixture("pipelines/sana");
    let wanted = pixels(&place, &source);
    let grow = ["grow", &source, "-o", "grown", "--layers", "5"];
    let json = place.ok(&[&grow[..], &["--json"]].concat()).json();
    assert_eq!(json["model"], "grown");
    let report = &json["report"];
    assert_eq!(
        (&report["source_layers"], &report["layers"]),
        (&2.into(), &5.into())
    );
    assert!(place.path("grown/growth.json").exists() && place.path("grown/recipe.json").exists());
    assert!(place.ok(&["inspect", "grown"]).stdout.contains("complete"));
    assert_eq!(pixels(&place, "grown"), wanted);
    place.fails(1, &["grown", "there already"], &grow);
    place.fails(
        1,
        &["is the input"],
        &["grow", "grown", "-o", "grown", "--layers", "9"],
    );
    place.fails(
        1,
        &["more than the 5"],
        &[
            "grow", "grown", "-o", "less", "--layers", "4", "--drop", "0",
        ],
    );
    let unknown = [
        "grow",
        "grown",
        "-o",
        "x",
        "--layers",
        "9",
        "--strategy",
        "fast",
    ];
    place.fails(2, &["constant", "interpolation"], &unknown);

    std::fs::write(place.path("prompts.txt"), "a cat\na dog\n").unwrap();
    let prune = [
        "prune",
        "grown",
        "-o",
        "pruned",
        "--prompts",
        "prompts.txt",
        "--steps",
        "2",
    ];
    let outcome = place.ok(&[&prune[..], &["--keep", "0.4"]].concat());
    let left_out = outcome
        .stdout
        .lines()
        .filter(|line| line.contains("left out"));
    assert_eq!(left_out.count(), 3, "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("pruned\n"));
    assert_eq!(pixels(&place, "pruned"), wanted);
    let report = std::fs::read_to_string(place.path("pruned/pruning.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["prompts"], &report["layers"]),
        (&2.into(), &2.into())
    );
    assert_eq!(report["blocks"][4]["importance"], 0.0);
    let again = ["prune", "grown", "-o", "other", "--blocks", "2"];
    place.fails(2, &["--prompts"], &again);
    place.fails(2, &["--blocks", "--keep"], &again[..4]);
    place.fails(
        1,
        &["expected 1 to 4"],
        &["prune", "grown", "-o", "other", "--blocks", "5"],
    );
}
