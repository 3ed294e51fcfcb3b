//! Tiny networks that find characters and read words.

use brisk_pipelines::Control;
use brisk_train::data::scene_text::Fonts;
use brisk_train::recipe::Recipe;
use brisk_train::{DetectorRecipe, RecogniserRecipe, train_detector, train_recogniser};
use serde_json::{Value, json};

use super::{assert_same_checkpoint, assert_stopped, losses, stopping_at, training};

/// Updates of the recogniser in which columns are told their letters: two lines of its log.
const PLACED: usize = 10;

fn detector(steps: u64) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 2.into();
    json!({
        "kind": "detector", "name": "tiny", "training": training,
        "config": {
            "stage_channels": [4, 4, 8, 8, 8], "deep_channels": 8, "join_channels": [8, 8, 4, 4],
            "head_channels": [4, 4]
        },
        "picture_size": 64, "eval_every": 20, "eval_scenes": 1, "final_scenes": 1
    })
}

fn recogniser(steps: u64) -> Value {
    let mut training = training("adamw", steps);
    training["batch"] = 4.into();
    json!({
        "kind": "recogniser", "name": "tiny", "training": training,
        "config": {
            "output_channels": 16, "hidden_size": 8, "image_height": 32,
            "characters": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        },
        "letter_share": 0.5, "placed_steps": PLACED, "eval_every": 20, "eval_words": 2, "final_words": 3
    })
}

fn read(document: &Value) -> brisk_train::Result<Recipe> {
    Recipe::parse(document.to_string().as_bytes(), "tiny")
}

fn detector_recipe(steps: u64) -> DetectorRecipe {
    match read(&detector(steps)).unwrap() {
        Recipe::Detector(recipe) => recipe,
        _ => unreachable!(),
    }
}

fn recogniser_recipe(steps: u64) -> RecogniserRecipe {
    match read(&recogniser(steps)).unwrap() {
        Recipe::Recogniser(recipe) => recipe,
        _ => unreachable!(),
    }
}

/// The mean of the first and of the last lines of the log.
fn fell(losses: &[f64]) -> bool {
    let third = losses.len().div_ceil(3);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&losses[losses.len() - third..]) < 0.9 * mean(&losses[..third])
}

#[test]
fn a_detector_learns_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let (recipe, fonts) = (detector_recipe(40), Fonts::built_in());
    let report = train_detector(&recipe, &fonts, None, &whole, &Control::silent()).unwrap();
    assert!(fell(&losses(&whole)), "{:?}", losses(&whole));
    assert!((0.0..=1.0).contains(&report.scores.words_found) && report.scenes == 1);
    let stopped = train_detector(&recipe, &fonts, None, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    train_detector(&recipe, &fonts, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
}

#[test]
fn a_recogniser_learns_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let (recipe, fonts) = (recogniser_recipe(40), Fonts::built_in());
    let report = train_recogniser(&recipe, &fonts, None, &whole, &Control::silent()).unwrap();
    let found = losses(&whole);
    let (placed, aligned) = found.split_at(PLACED / 5);
    assert!(placed[1] < placed[0] && fell(aligned), "{found:?}");
    assert!((0.0..=1.0).contains(&report.words_right) && report.words == 3);
    let stopped = train_recogniser(&recipe, &fonts, None, &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    train_recogniser(&recipe, &fonts, None, &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
}

#[test]
fn unfit_recipes_are_refused_by_key() {
    for (mut document, key, value, found) in [
        (detector(1), "picture_size", json!(70), "picture_size is 70"),
        (detector(1), "eval_scenes", json!(0), "eval_scenes"),
        (
            detector(1),
            "config",
            json!({"deep_channels": 0}),
            "deep_channels",
        ),
        (recogniser(1), "letter_share", json!(2), "letter_share"),
        (
            recogniser(1),
            "config",
            json!({"characters": "abc"}),
            "config.characters is abc",
        ),
    ] {
        document[key] = value;
        let message = read(&document).unwrap_err().to_string();
        assert!(message.contains(found), "no {found:?} in {message}");
    }
}
