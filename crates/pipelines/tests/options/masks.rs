//! Options of models that find pixels.

use std::path::Path;
use std::sync::Arc;

use brisk_media::Picture;
use brisk_pipelines::options::Scope;
use brisk_pipelines::{Control, MaskRequest, OpenSettings, Result, ResultKind, registry};
use brisk_store::{ModelFolder, write_safetensors};

use crate::{
    Case, GivenOptions, check, check_complete, copy, fixture, hash, options, other_weights, text,
};

const MODEL: &str = "sam/base";

fn picture() -> Arc<Picture> {
    let (width, height) = (90, 70);
    let value = |at: usize| (at * at / 53 % 256) as u8;
    let pixels = (0..width * height * 3).map(value).collect();
    Arc::new(Picture::new(width, height, pixels).unwrap())
}

/// Finds masks and sums them up.
fn find(folder: &Path, given: &GivenOptions) -> Result<String> {
    let options = options(ResultKind::Masks, given)?;
    let folder = ModelFolder::Disk(folder.to_owned());
    let settings = OpenSettings::new(options.of_scope(Scope::Open));
    let mut model = registry::open_masks(&folder, &settings)?;
    let request = MaskRequest {
        options: options.of_scope(Scope::Request),
        ..MaskRequest::new(picture())
    };
    let plan = model.plan(&request)?;
    let found = model.generate(&plan, &Control::silent())?;
    // What changes no mask here: points at once change none ever, and of random weights no mask of a part is kept.
    // The goldens in tests/sam.rs are of such parts.
    let unseen = [
        "points_per_batch",
        "crop_overlap_ratio",
        "crop_n_points_downscale_factor",
        // Of random networks every place is a character's, or none is.
        "link_threshold",
    ];
    let unseen = unseen.map(|name| plan.settings.get(name));
    let mut summary = format!("{unseen:?} {}\n", found.seconds[0].1 > 0.0);
    for mask in &found.masks {
        let pixels = mask.mask();
        let sum = hash(pixels.pixels().iter().map(|inside| u8::from(*inside)));
        summary += &format!(
            "{:?} {sum:x} {:.4} {:.4}\n",
            mask.prompt, mask.quality, mask.stability
        );
    }
    for word in found.words.iter().flatten() {
        summary += &format!("{:?} {} {:?}\n", word.text, word.runs.area(), word.flags);
        for character in &word.characters {
            summary += &format!(
                "{:?} {:?} {:?}\n",
                character.class, character.quad, character.points
            );
        }
    }
    Ok(summary)
}

/// A picture's words, with boxes of characters.
fn word_file(place: &Path) -> String {
    let path = place.join("words.json");
    let words = r#"[{"box": [4, 4, 84, 40], "text": "Bo", "characters": [{"text": "B", "box": [6, 6, 40, 38]}]}]"#;
    std::fs::write(&path, words).unwrap();
    text(path)
}

/// What the model sees of the picture, as it is kept.
fn embedding_file(place: &Path) -> String {
    let mut model =
        registry::open_masks(&ModelFolder::Disk(fixture(MODEL)), &OpenSettings::default()).unwrap();
    let request = MaskRequest::new(picture())
        .with(&brisk_pipelines::options::mask_keys::POINT, vec![9.0, 9.0]);
    let found = model.find(&request, &Control::silent()).unwrap();
    let (tensor, texts) = found.embedding.unwrap().to_file();
    let path = place.join("seen.safetensors");
    write_safetensors(&path, &[tensor], &texts).unwrap();
    text(path)
}

fn cases(place: &Path) -> Vec<Case> {
    let boxes = place.join("boxes.json");
    std::fs::write(
        &boxes,
        r#"[[5, 5, 60, 40], {"points": [[70, 60]], "name": "corner"}]"#,
    )
    .unwrap();
    let variant = copy(&fixture(MODEL), &place.join("variant"));
    other_weights(
        &variant.join("model.safetensors"),
        &variant.join("model.fp16.safetensors"),
    );
    let case = |option, value: &str, with: &[(&'static str, &str)]| Case {
        option,
        value: value.to_owned(),
        with: with
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        folder: fixture(MODEL),
    };
    let point: &[(&str, &str)] = &[("point", "30,20")];
    let file = word_file(place);
    let words: &[(&str, &str)] = &[("words", &file)];
    // Of random networks few masks are kept for their points, so many letters are tried.
    let several = place.join("several.json");
    let text_of = |top: u32| {
        format!(
            r#"{{"box": [2, {top}, 88, {}], "text": "BAO8Re"}}"#,
            top + 22
        )
    };
    let lines = [2, 24, 46].map(text_of).join(", ");
    std::fs::write(&several, format!("[{lines}]")).unwrap();
    let several = text(several);
    let more_fonts = copy(&fixture("../crates/media/fonts"), &place.join("fonts"));
    let networks = [text(fixture("craft/base")), text(fixture("crnn/base"))];
    let refiner = text(fixture("craft/refiner/model.safetensors"));
    // Random networks score every place about alike.
    let auto: &[(&str, &str)] = &[
        ("words", "auto"),
        ("detector", &networks[0]),
        ("text-threshold", "0"),
        ("low-text", "0"),
        ("link-threshold", "0"),
    ];
    let found = |option, value: &str| {
        let with: Vec<_> = auto
            .iter()
            .copied()
            .filter(|(name, _)| *name != option)
            .collect();
        case(option, value, &with)
    };
    // Of random weights every mask is bad, and none is stable.
    let all: &[(&str, &str)] = &[
        ("everything", "true"),
        ("points-per-side", "3"),
        ("pred-iou-thresh", "0"),
        ("stability-score-thresh", "0"),
        ("box-nms-thresh", "1"),
    ];
    let everything = |option, value: &str| {
        let with: Vec<_> = all
            .iter()
            .copied()
            .filter(|(name, _)| *name != option)
            .collect();
        case(option, value, &with)
    };
    let parts = |option, value: &str| {
        let with = [all, &[("crop-n-layers", "1"), ("crop-nms-thresh", "1")]].concat();
        let with: Vec<_> = with
            .into_iter()
            .filter(|(name, _)| *name != option)
            .collect();
        case(option, value, &with)
    };
    vec![
        case("point", "30,20", &[("box", "5,5,60,40")]),
        case("negative-point", "30,20", point),
        case("box", "5,5,60,40", point),
        case("boxes", &text(boxes), point),
        // Its effect stands with its settings.
        case("everything", "true", point),
        case("multimask", "all", point),
        case("mask-threshold", "0.5", point),
        case("embedding", &embedding_file(place), point),
        case("words", &file, point),
        case("prompt", "word", words),
        case("points", "none", &[("words", &several)]),
        case("mask-input", "on", words),
        case("crop-words", "never", words),
        case("fonts", &text(more_fonts), &[("words", &several)]),
        case("detector", &networks[0], words),
        case("recogniser", &networks[1], &[auto, &[]].concat()),
        found("text-threshold", "0"),
        found("low-text", "0"),
        found("link-threshold", "0"),
        found("link-refiner", &refiner),
        everything("points-per-side", "2"),
        everything("points-per-batch", "2"),
        everything("pred-iou-thresh", "0"),
        everything("stability-score-thresh", "0"),
        everything("stability-score-offset", "0.2"),
        everything("box-nms-thresh", "1"),
        everything("crop-n-layers", "1"),
        parts("crop-nms-thresh", "1"),
        parts("crop-overlap-ratio", "0.1"),
        parts("crop-n-points-downscale-factor", "3"),
        everything("min-mask-region-area", "500"),
        Case {
            folder: variant,
            ..case("variant", "fp16", point)
        },
        case("quantize-transformer", "8bit", point),
        // These networks are too narrow to have another way; it stands in the tests of layers.
        case("exact", "true", &[("point", "900,20")]),
    ]
}

#[test]
fn every_option_changes_a_mask_or_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let cases = cases(place.path());
    check_complete(ResultKind::Masks, &cases);
    for case in cases.iter().filter(|case| case.option != "exact") {
        check(case, find);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let refused = |given: &[(&'static str, &str)]| {
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        find(&fixture(MODEL), &given).unwrap_err().to_string()
    };
    let place = tempfile::tempdir().unwrap();
    let seen = embedding_file(place.path());
    let other = place.path().join("boxes.json");
    std::fs::write(&other, r#"[[1, 2, 3, 4], [500, 0, 600, 9]]"#).unwrap();
    for (given, words) in [
        (&[][..], ["point", "`everything`"]),
        (&[("point", "3")], ["point", "1 numbers"]),
        (&[("box", "1,2,3")], ["box", "3 numbers"]),
        (&[("box", "9,2,3,8")], ["box", "no area"]),
        (&[("point", "91,3")], ["point", "outside"]),
        (
            &[("boxes", &text(other))],
            ["boxes", "1: the box 500,0,600,9"],
        ),
        (
            &[("box", "1,1,9,9"), ("box", "2,2,9,9"), ("point", "1,1")],
            ["point", "2 boxes"],
        ),
        (
            &[("everything", "true"), ("point", "1,1")],
            ["everything", "one of both"],
        ),
        (
            &[("everything", "true"), ("multimask", "all")],
            ["multimask", "no effect"],
        ),
        (
            &[
                ("everything", "true"),
                ("crop-n-layers", "1"),
                ("embedding", &seen),
            ],
            ["embedding", "crop-n-layers"],
        ),
        (
            &[("point", "1,1"), ("embedding", "nowhere.safetensors")],
            ["embedding", "nowhere"],
        ),
        (
            &[("point", "1,1"), ("points-per-side", "4")],
            ["points-per-side", "without `everything`"],
        ),
    ] {
        let message = refused(given);
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    }
}
